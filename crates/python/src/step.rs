//! One step of a pump: from a resumption by its task to the next time it has to wait.

use std::ptr;

use pyo3::ffi;

use crate::args::Object;
use crate::entry::{Entry, Text};
use crate::globals::globals;
use crate::message::MessageObject;
use crate::obj::{R, Raised, Ref, is_exception, raise, raise_object, taken};
use crate::pump::{Drive, Phase, Pump, State};
use crate::waiting;
use crate::waker::Waker;

/// The clock for the time slice is read once for so many messages.
const STRIDE: u32 = 16;

/// What the task gave.
pub(crate) enum Input {
    Send(Ref),
    Throw(Ref),
}

/// What the task gets.
pub(crate) enum Output {
    Yield(Ref),
    Return,
}

/// How the driving of one awaitable went.
enum Driven {
    Returned(Ref),
    Yielded(Ref, Ref),
    Failed(Raised),
}

/// How far the handling of one message, or batch, came.
enum Handled {
    /// To be acknowledged on the mailbox.
    Done,
    /// Settled by its handler or by `failed`.
    Settled,
    Suspended(Ref),
    /// The pump ends with the exception that is set.
    Ended(Raised),
}

/// # Safety
/// `this` is the live object of `pump`.
pub(crate) unsafe fn resume(pump: &Pump, this: Object, input: Input) -> R<Output> {
    let g = globals();
    if pump.running.get() {
        return Err(raise(&g.value_error, "coroutine already executing"));
    }
    let _drive = Drive::new(pump);
    let handled = match (pump.state.get(), input) {
        (State::Closed, _) => {
            return Err(raise(&g.runtime_error, "cannot reuse already awaited coroutine"));
        }
        (State::Suspended(phase), input) => {
            pump.mailbox().core.resumed(pump.worker);
            continued(pump, this, phase, input)
        }
        (_, Input::Throw(exception)) => {
            pump.finish();
            return Err(raise_object(exception));
        }
        (state, Input::Send(_)) => {
            if state == State::Created {
                pump.event_loop.set(g.running_loop.call(&[])?);
            }
            if state != State::Yielded {
                pump.mailbox().core.resumed(pump.worker);
                pump.waker.take();
            }
            pump.state.set(State::Yielded);
            return run(pump, this, Handled::Settled);
        }
    };
    run(pump, this, handled)
}

/// Message after message, beginning with what became of the last one.
fn run(pump: &Pump, this: Object, handled: Handled) -> R<Output> {
    let answer =
        if pump.batch == 0 { singles(pump, this, handled) } else { batches(pump, this, handled) };
    if !matches!(answer, Ok(Output::Yield(_))) {
        // The exception that ends the pump outlives what its end sets off.
        let raised = answer.as_ref().err().map(|_| taken(Raised));
        pump.finish();
        if let Some(exception) = raised {
            raise_object(exception);
        }
    }
    answer
}

/// How long the pump may go on before it has to let the loop run.
struct Slice {
    left: u32,
    length_ns: u64,
    until_ns: u64,
}

impl Slice {
    fn new(pump: &Pump) -> Slice {
        let until_ns = if pump.slice_ns > 0 { monotonic() + pump.slice_ns } else { 0 };
        Slice { left: pump.budget, length_ns: pump.slice_ns, until_ns }
    }

    #[inline]
    fn spend(&mut self, messages: u32) {
        let before = self.left;
        self.left = before.saturating_sub(messages);
        let crossed = self.left / STRIDE != before / STRIDE;
        if crossed && self.length_ns > 0 && monotonic() >= self.until_ns {
            self.left = 0;
        }
    }

    #[inline]
    fn is_over(&self) -> bool {
        self.left == 0
    }
}

/// The system's clock: slices are about the processor, whatever the clock of the bus says.
fn monotonic() -> u64 {
    neuralcore_bus::Clock::System.monotonic_ns()
}

fn singles(pump: &Pump, this: Object, mut handled: Handled) -> R<Output> {
    let mailbox = pump.mailbox();
    let mut slice = Slice::new(pump);
    loop {
        let finished = match handled {
            Handled::Done => landed(pump),
            Handled::Settled => {
                pump.current.take();
                None
            }
            Handled::Suspended(yielded) => return Ok(Output::Yield(yielded)),
            Handled::Ended(raised) => return Err(raised),
        };
        if pump.stopping.get() || slice.is_over() {
            acknowledge(pump, finished);
            return Ok(pause(pump));
        }
        let taken = match &finished {
            None => mailbox.core.take(),
            Some(message) => {
                // SAFETY: only read while the mailbox works on it.
                let key = unsafe { MessageObject::of(message) }.key().map(Text::as_str);
                let (granted, taken) = mailbox.core.settle_and_take(key);
                waiting::granted(granted);
                taken
            }
        };
        drop(finished);
        let Some(taken) = taken else {
            match rest(pump)? {
                Rest::Wait(future) => return Ok(Output::Yield(future)),
                Rest::Over => return Ok(Output::Return),
                Rest::Work => {
                    handled = Handled::Settled;
                    continue;
                }
            }
        };
        handled = match mailbox.deliver(&pump.mailbox, taken)? {
            None => Handled::Settled,
            Some((message, sampled)) => {
                pump.measured_ns.set(if sampled { mailbox.clock.monotonic_ns() } else { 0 });
                pump.current.set(message);
                slice.spend(1);
                fresh(pump, this)
            }
        };
    }
}

fn batches(pump: &Pump, this: Object, mut handled: Handled) -> R<Output> {
    let mailbox = pump.mailbox();
    let mut slice = Slice::new(pump);
    loop {
        match handled {
            Handled::Done | Handled::Settled => {
                pump.current.take();
                drop(pump.messages.take());
            }
            Handled::Suspended(yielded) => return Ok(Output::Yield(yielded)),
            Handled::Ended(raised) => return Err(raised),
        }
        if pump.stopping.get() || slice.is_over() {
            return Ok(pause(pump));
        }
        let (messages, sampled) = collect(pump)?;
        if messages.is_empty() {
            match rest(pump)? {
                Rest::Wait(future) => return Ok(Output::Yield(future)),
                Rest::Over => return Ok(Output::Return),
                Rest::Work => {
                    handled = Handled::Settled;
                    continue;
                }
            }
        }
        slice.spend(messages.len() as u32);
        let list = list(&messages);
        pump.messages.set(messages);
        match list {
            Ok(list) => pump.current.set(list),
            Err(raised) => {
                pump.give_back();
                return Err(raised);
            }
        }
        pump.measured_ns.set(if sampled { mailbox.clock.monotonic_ns() } else { 0 });
        handled = fresh(pump, this);
    }
}

/// Up to a batch of messages, and whether their handling is to be measured.
fn collect(pump: &Pump) -> R<(Vec<Ref>, bool)> {
    let mailbox = pump.mailbox();
    let mut taken = mailbox.core.take_many(pump.batch).into_iter();
    let mut messages = Vec::with_capacity(taken.len());
    let mut sampled = false;
    while let Some(entry) = taken.next() {
        match mailbox.deliver(&pump.mailbox, entry) {
            Ok(None) => {}
            Ok(Some((message, measured))) => {
                sampled |= measured;
                messages.push(message);
            }
            Err(raised) => {
                let exception = taken_back(pump, messages, taken, raised);
                return Err(raise_object(exception));
            }
        }
    }
    Ok((messages, sampled))
}

#[cold]
fn taken_back(
    pump: &Pump,
    messages: Vec<Ref>,
    rest: impl DoubleEndedIterator<Item = (i64, Entry)>,
    raised: Raised,
) -> Ref {
    let exception = taken(raised);
    let mailbox = pump.mailbox();
    for (rank, entry) in rest.rev() {
        let wake = mailbox.core.release(rank, entry);
        mailbox.wake_some(wake);
    }
    pump.messages.set(messages);
    pump.give_back();
    exception
}

fn list(messages: &[Ref]) -> R<Ref> {
    // SAFETY: every place of the new list is filled before anybody sees it.
    unsafe {
        let list = Ref::steal(ffi::PyList_New(messages.len() as isize))?;
        for (index, message) in messages.iter().enumerate() {
            ffi::PyList_SET_ITEM(list.as_ptr(), index as isize, message.clone().into_ptr());
        }
        Ok(list)
    }
}

/// The current message, if it is still to be acknowledged.
#[inline]
fn landed(pump: &Pump) -> Option<Ref> {
    let message = pump.current.take()?;
    // SAFETY: no other borrow of it is alive.
    unsafe { MessageObject::of(&message) }.finish().then_some(message)
}

fn acknowledge(pump: &Pump, finished: Option<Ref>) {
    if let Some(message) = finished {
        // SAFETY: only read while the mailbox works on it.
        pump.mailbox().finish(unsafe { MessageObject::of(&message) });
    }
}

/// Lets the loop run, or ends.
fn pause(pump: &Pump) -> Output {
    if pump.stopping.get() {
        return Output::Return;
    }
    pump.state.set(State::Yielded);
    Output::Yield(Ref::none())
}

enum Rest {
    Wait(Ref),
    Work,
    Over,
}

/// Waits for work. The future is there before the mailbox may choose this worker.
fn rest(pump: &Pump) -> R<Rest> {
    let mailbox = pump.mailbox();
    if mailbox.core.finished() {
        return Ok(Rest::Over);
    }
    let event_loop = pump.event_loop.get().ok_or(Raised)?;
    let waker = Waker::on(&event_loop)?;
    let future = waker.yielded()?;
    pump.waker.set(Some(waker));
    if !mailbox.core.idle(pump.worker) {
        drop(pump.waker.take());
        return Ok(Rest::Work);
    }
    pump.state.set(State::Idle);
    Ok(Rest::Wait(future))
}

/// The context of the current message, entered until the end of the scope.
struct Entered(*mut ffi::PyObject);

impl Entered {
    #[inline]
    fn new(context: *mut ffi::PyObject) -> R<Entered> {
        // SAFETY: the context is live and held by the pump.
        match unsafe { ffi::PyContext_Enter(context) } {
            0 => Ok(Entered(context)),
            _ => Err(Raised),
        }
    }
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: it is the current context; leaving it keeps the exception that may be set.
        unsafe { ffi::PyContext_Exit(self.0) };
    }
}

/// The first step of a handler, in a context of its own.
#[inline]
fn fresh(pump: &Pump, this: Object) -> Handled {
    // SAFETY: the base is a live context.
    let context = match unsafe { Ref::steal(ffi::PyContext_Copy(pump.base.as_ptr())) } {
        Ok(context) => context,
        Err(raised) => return abandon(pump, raised),
    };
    let address = context.as_ptr();
    pump.context.set(context);
    let Ok(_entered) = Entered::new(address) else { return abandon(pump, Raised) };
    let argument = pump.current.address();
    let called = call(&pump.handler, argument);
    let driven = match called {
        Err(raised) => Driven::Failed(raised),
        Ok(answer) => begin(answer),
    };
    advance(pump, this, Phase::Handling, driven)
}

fn abandon(pump: &Pump, raised: Raised) -> Handled {
    let exception = taken(raised);
    pump.give_back();
    Handled::Ended(raise_object(exception))
}

/// One argument, with the spare place before it that bound methods use.
#[inline]
fn call(function: &Ref, argument: Object) -> R<Ref> {
    let args = [ptr::null_mut(), argument];
    // SAFETY: the argument is live for the call, and the place before it may be overwritten.
    unsafe {
        Ref::steal(ffi::PyObject_Vectorcall(
            function.as_ptr(),
            args.as_ptr().add(1),
            1 | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
            ptr::null_mut(),
        ))
    }
}

/// Drives what a function answered, if it is an awaitable; anything else is the result.
#[inline]
fn begin(answer: Ref) -> Driven {
    // SAFETY: reading the type of a live object.
    unsafe {
        if answer.is_none() {
            return Driven::Returned(answer);
        }
        let kind = ffi::Py_TYPE(answer.as_ptr());
        if ptr::eq(kind, &raw const ffi::PyCoro_Type) {
            return send(answer, ffi::Py_None());
        }
        match iterator(answer, kind) {
            Ok(Ok(iterator)) => send(iterator, ffi::Py_None()),
            Ok(Err(plain)) => Driven::Returned(plain),
            Err(raised) => Driven::Failed(raised),
        }
    }
}

/// The iterator of an awaitable, or what is none.
#[cold]
unsafe fn iterator(answer: Ref, kind: *mut ffi::PyTypeObject) -> R<Result<Ref, Ref>> {
    // SAFETY: the type belongs to the live object.
    unsafe {
        let slots = (*kind).tp_as_async;
        if !slots.is_null()
            && let Some(am_await) = (*slots).am_await
        {
            return Ref::steal(am_await(answer.as_ptr())).map(Ok);
        }
        if ffi::PyGen_CheckExact(answer.as_ptr()) != 0 && is_coroutine(&answer)? {
            return Ok(Ok(answer));
        }
    }
    Ok(Err(answer))
}

/// Whether a generator was made by `types.coroutine`.
fn is_coroutine(generator: &Ref) -> R<bool> {
    const CO_ITERABLE_COROUTINE: i64 = 0x100;
    let g = globals();
    let flags = generator.attr(&g.gi_code)?.attr(&g.co_flags)?;
    Ok(crate::args::integer(flags)? & CO_ITERABLE_COROUTINE != 0)
}

#[inline]
unsafe fn send(iterator: Ref, value: Object) -> Driven {
    let mut result = ptr::null_mut();
    // SAFETY: both are live; the result is a new reference unless the call failed.
    unsafe {
        match ffi::PyIter_Send(iterator.as_ptr(), value, &mut result) {
            ffi::PySendResult::PYGEN_RETURN => {
                Driven::Returned(Ref::steal(result).unwrap_unchecked())
            }
            ffi::PySendResult::PYGEN_NEXT => {
                Driven::Yielded(Ref::steal(result).unwrap_unchecked(), iterator)
            }
            ffi::PySendResult::PYGEN_ERROR => Driven::Failed(Raised),
        }
    }
}

/// Throws into what is driven; an iterator without `throw` just ends.
fn throw(iterator: Ref, exception: Ref) -> Driven {
    let g = globals();
    let Ok(method) = iterator.attr(&g.throw) else {
        drop(taken(Raised));
        return Driven::Failed(raise_object(exception));
    };
    match method.call(&[exception.as_ptr()]) {
        Ok(yielded) => Driven::Yielded(yielded, iterator),
        Err(raised) => match stop_value(raised) {
            Ok(value) => Driven::Returned(value),
            Err(raised) => Driven::Failed(raised),
        },
    }
}

/// The value of the StopIteration that is set; any other exception stays set.
pub(crate) fn stop_value(raised: Raised) -> R<Ref> {
    let g = globals();
    let exception = taken(raised);
    if !is_exception(&exception, &g.stop_iteration) {
        return Err(raise_object(exception));
    }
    exception.attr(&g.value)
}

/// Goes on with a suspended message.
fn continued(pump: &Pump, this: Object, phase: Phase, input: Input) -> Handled {
    pump.state.set(State::Yielded);
    let Some(iterator) = pump.iterator.take() else {
        return abandon(pump, raise(&globals().runtime_error, "nothing to resume"));
    };
    let context = pump.context.address();
    let Ok(_entered) = Entered::new(context) else { return abandon(pump, Raised) };
    let driven = match input {
        // SAFETY: both are live.
        Input::Send(value) => unsafe { send(iterator, value.as_ptr()) },
        Input::Throw(exception) => {
            if is_exception(&exception, &globals().cancelled_error) {
                pump.thrown.set(true);
            }
            throw(iterator, exception)
        }
    };
    advance(pump, this, phase, driven)
}

/// From one phase of a message to the next, until it is done or has to wait.
#[inline]
fn advance(pump: &Pump, this: Object, mut phase: Phase, mut driven: Driven) -> Handled {
    loop {
        let step = match (phase, driven) {
            (phase, Driven::Yielded(yielded, iterator)) => {
                return suspend(pump, this, phase, yielded, iterator);
            }
            (Phase::Handling, Driven::Returned(result)) => match reply(pump, result) {
                Ok(None) => return finished(pump),
                Ok(Some(answer)) => Ok((Phase::Replying, begin(answer))),
                Err(raised) => Err(raised),
            },
            (Phase::Replying, Driven::Returned(_)) => {
                let result = pump.result.take().unwrap_or_else(Ref::none);
                match complete(pump, &result) {
                    Ok(()) => return finished(pump),
                    Err(raised) => Err(raised),
                }
            }
            (Phase::Handling | Phase::Replying, Driven::Failed(raised)) => Err(raised),
            (Phase::Deciding, Driven::Returned(_)) => return decided(pump),
            (Phase::Deciding, Driven::Failed(raised)) => return abandon(pump, raised),
        };
        (phase, driven) = match step {
            Ok(next) => next,
            Err(raised) => match failed(pump, raised) {
                Err(handled) => return handled,
                Ok(answer) => (Phase::Deciding, begin(answer)),
            },
        };
    }
}

/// After the handler: hands its result to whoever asked, or completes at once. Some is what `replied` answered.
#[inline]
fn reply(pump: &Pump, result: Ref) -> R<Option<Ref>> {
    if pump.batch == 0 {
        let current = pump.current.address();
        // SAFETY: the current message is live; the borrow ends with the statement.
        let asked = unsafe {
            let extras = &(*current.cast::<MessageObject>()).extras;
            extras.as_ref().is_some_and(|extras| extras.reply_to.is_some())
        };
        if asked {
            let answer = pump.replied.call(&[current, result.as_ptr()])?;
            pump.result.set(result);
            return Ok(Some(answer));
        }
    }
    complete(pump, &result)?;
    Ok(None)
}

/// Tells `settled` what nobody has settled yet.
#[inline]
fn complete(pump: &Pump, result: &Ref) -> R<()> {
    let Some(settled) = &pump.settled else { return Ok(()) };
    for message in unsettled(pump) {
        settled.call(&[message.as_ptr(), result.as_ptr()])?;
    }
    Ok(())
}

/// The messages under way that are not settled.
fn unsettled(pump: &Pump) -> Vec<Ref> {
    let all = if pump.batch == 0 {
        pump.current.get().into_iter().collect()
    } else {
        let messages = pump.messages.take();
        let copy = messages.clone();
        pump.messages.set(messages);
        copy
    };
    // SAFETY: no other borrow of them is alive.
    all.into_iter().filter(|message| !unsafe { MessageObject::of(message) }.settled()).collect()
}

/// Success: marks what is not settled.
#[inline]
fn finished(pump: &Pump) -> Handled {
    if (pump.timer.is_some() || pump.thrown.get())
        && let Err(raised) = pump.disarm()
    {
        return abandon(pump, raised);
    }
    measure(pump);
    if pump.batch == 0 {
        let current = pump.current.address();
        // SAFETY: the current message is live; no other borrow of it is.
        let first = unsafe { (*current.cast::<MessageObject>()).settle() };
        return if first { Handled::Done } else { Handled::Settled };
    }
    let mut messages = pump.messages.take();
    messages.retain(|message| {
        // SAFETY: no other borrow of it is alive.
        let fields = unsafe { MessageObject::of(message) };
        fields.settle() && fields.finish()
    });
    // SAFETY: only read while the mailbox works on them.
    let fields = messages.iter().map(|message| unsafe { &*MessageObject::of(message) });
    let keys = fields.map(|fields| fields.key().map(Text::as_str));
    let (granted, wake) = pump.mailbox().core.ack_many(keys);
    granted.into_iter().for_each(|ticket| waiting::granted(Some(ticket)));
    pump.mailbox().wake_some(wake);
    Handled::Settled
}

#[inline]
fn measure(pump: &Pump) {
    let began = pump.measured_ns.replace(0);
    if began != 0 {
        let mailbox = pump.mailbox();
        mailbox.core.record_handle(mailbox.clock.monotonic_ns().saturating_sub(began));
    }
}

/// The handler raised. Ok is what `failed` answered; Err what becomes of the pump without it.
#[cold]
fn failed(pump: &Pump, raised: Raised) -> Result<Ref, Handled> {
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
    let fatal = [&g.keyboard_interrupt, &g.system_exit, &g.generator_exit];
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
        return Err(decided(pump));
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
fn timeout(pump: &Pump, cancellation: Ref) -> R<Ref> {
    let seconds = pump.timeout.unwrap_or_default();
    let text = format!("the handler took longer than {seconds} s");
    let exception = taken(raise(&globals().timeout_error, &text));
    // SAFETY: both are exceptions; the cause is handed over.
    unsafe { ffi::PyException_SetCause(exception.as_ptr(), cancellation.into_ptr()) };
    Ok(exception)
}

/// Nobody decides on a message that its handler has settled, but the error is not lost.
fn report(pump: &Pump, exception: &Ref) -> R<()> {
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
fn decided(pump: &Pump) -> Handled {
    match pump.ending.take() {
        None => Handled::Settled,
        Some(exception) => Handled::Ended(raise_object(exception)),
    }
}

/// Waits with the handler; others may take what is queued.
#[cold]
fn suspend(pump: &Pump, this: Object, phase: Phase, yielded: Ref, iterator: Ref) -> Handled {
    if phase != Phase::Deciding
        && let Err(raised) = pump.arm(this)
    {
        drop(iterator);
        return abandon(pump, raised);
    }
    pump.iterator.set(iterator);
    pump.state.set(State::Suspended(phase));
    let mailbox = pump.mailbox();
    let wake = mailbox.core.suspended(pump.worker);
    mailbox.wake_some(wake);
    Handled::Suspended(yielded)
}

/// `close()`: ends the handler and gives its message back.
pub(crate) fn close(pump: &Pump) -> R<()> {
    if pump.running.get() {
        return Err(raise(&globals().value_error, "coroutine already executing"));
    }
    let drive = Drive::new(pump);
    let closed = match pump.iterator.take() {
        None => Ok(()),
        Some(iterator) => close_iterator(pump, &iterator),
    };
    let raised = closed.err().map(taken);
    let disarmed = pump.disarm().err().map(taken);
    pump.give_back();
    pump.finish();
    drop(drive);
    match raised.or(disarmed) {
        None => Ok(()),
        Some(exception) => Err(raise_object(exception)),
    }
}

fn close_iterator(pump: &Pump, iterator: &Ref) -> R<()> {
    let _entered = Entered::new(pump.context.address())?;
    match iterator.attr(&globals().close) {
        Ok(method) => method.call(&[]).map(drop),
        // A future has no close.
        Err(raised) => {
            drop(taken(raised));
            Ok(())
        }
    }
}
