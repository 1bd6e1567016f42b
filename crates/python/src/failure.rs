//! What becomes of a message whose handler raised.

use pyo3::ffi;

use crate::globals::globals;
use crate::handle::{Handled, abandon, asked, measure, unsettled};
use crate::obj::{R, Raised, Ref, is_exception, raise, raise_object, taken};
use crate::pump::Pump;
use crate::step::list;

/// The handler raised. Ok is what `failed` answered; Err what becomes of the pump without it.
#[cold]
pub(crate) fn failed(pump: &Pump, raised: Raised) -> Result<Ref, Handled> {
    let g = globals();
    let mut exception = taken(raised);
    measure(pump);
    pump.result.take();
    let thrown = pump.thrown.get() && is_exception(&exception, &g.cancelled_error);
    let timed_out = pump.timed_out.get();
    let cancelled_too = match pump.disarm() {
        Ok(cancelled) => cancelled,
        Err(raised) => return Err(abandon(pump, raised)),
    };
    let fatal = [&g.keyboard_interrupt, &g.system_exit];
    if fatal.iter().any(|kind| is_exception(&exception, kind)) || (thrown && pump.releasing.get()) {
        return Err(abandon(pump, raise_object(exception)));
    }
    if thrown && (cancelled_too || !timed_out) {
        pump.ending.set(exception.clone());
    }
    if thrown && timed_out {
        exception = timeout(pump, exception).map_err(|raised| abandon(pump, raised))?;
    }
    let open = unsettled(pump);
    if open.is_empty() {
        report(pump, &exception).map_err(|raised| abandon(pump, raised))?;
        if !asked(pump) {
            return Err(decided(pump));
        }
        return pump
            .failed
            .call(&[pump.current.address(), exception.as_ptr()])
            .map_err(|raised| abandon(pump, raised));
    }
    let argument = match open.into_iter().next() {
        Some(message) if pump.batch == 0 => Ok(message),
        _ => list(&unsettled(pump)),
    };
    argument
        .and_then(|argument| pump.failed.call(&[argument.as_ptr(), exception.as_ptr()]))
        .map_err(|raised| abandon(pump, raised))
}

/// What a cancellation by the timeout becomes.
pub(crate) fn timeout(pump: &Pump, cancellation: Ref) -> R<Ref> {
    let seconds = pump.timeout.unwrap_or_default();
    let text = format!("the handler took longer than {seconds} s");
    let exception = taken(raise(&globals().timeout_error, &text));
    // SAFETY: both are exceptions; the cause is handed over.
    unsafe { ffi::PyException_SetCause(exception.as_ptr(), cancellation.into_ptr()) };
    Ok(exception)
}

/// Nobody decides on a message that its handler has settled, but the error is not lost.
pub(crate) fn report(pump: &Pump, exception: &Ref) -> R<()> {
    let g = globals();
    if is_exception(exception, &g.cancelled_error) {
        return Ok(());
    }
    let Some(event_loop) = pump.event_loop.get() else { return Ok(()) };
    let py = crate::obj::attached();
    let context = pyo3::types::PyDict::new(py);
    let name = pump.name.get().unwrap_or_else(Ref::none);
    let text = format!("{}: the handler failed after it had settled its message", name.bind(py));
    pyo3::types::PyDictMethods::set_item(&context, "message", text)?;
    pyo3::types::PyDictMethods::set_item(&context, "exception", exception)?;
    event_loop.method(&g.call_exception_handler, &[context.as_ptr()]).map(drop)
}

/// The decision is made: the pump goes on, or ends as its cancellation wants.
pub(crate) fn decided(pump: &Pump) -> Handled {
    match pump.ending.take() {
        None => Handled::Settled,
        Some(exception) => Handled::Ended(raise_object(exception)),
    }
}
