//! One message, or batch, from its handler to its settlement.

use pyo3::ffi;

use crate::args::Object;
use crate::drive::{Driven, Entered, begin, call, send, throw};
use crate::entry::Text;
use crate::failure::{decided, failed};
use crate::globals::globals;
use crate::message::MessageObject;
use crate::obj::{R, Raised, Ref, is_exception, raise, raise_object, taken};
use crate::pump::{Phase, Pump, State};
use crate::step::Input;
use crate::waiting;

/// How far the handling of one message, or batch, came.
pub(crate) enum Handled {
    /// To be acknowledged on the mailbox.
    Done,
    /// Settled by its handler or by `failed`.
    Settled,
    Suspended(Ref),
    /// The pump ends with the exception that is set.
    Ended(Raised),
}

/// The first step of a handler, in a context of its own.
#[inline]
pub(crate) fn fresh(pump: &Pump, this: Object) -> Handled {
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

pub(crate) fn abandon(pump: &Pump, raised: Raised) -> Handled {
    let exception = taken(raised);
    pump.give_back();
    Handled::Ended(raise_object(exception))
}

/// Goes on with a suspended message.
pub(crate) fn continued(pump: &Pump, this: Object, phase: Phase, input: Input) -> Handled {
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
pub(crate) fn advance(pump: &Pump, this: Object, mut phase: Phase, mut driven: Driven) -> Handled {
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
pub(crate) fn reply(pump: &Pump, result: Ref) -> R<Option<Ref>> {
    if asked(pump) {
        let answer = pump.replied.call(&[pump.current.address(), result.as_ptr()])?;
        pump.result.set(result);
        return Ok(Some(answer));
    }
    complete(pump, &result)?;
    Ok(None)
}

/// It is a single request.
#[inline]
pub(crate) fn asked(pump: &Pump) -> bool {
    if pump.batch != 0 {
        return false;
    }
    let current = pump.current.address();
    // SAFETY: the current message is live; the borrow ends with the statement.
    unsafe {
        let extras = &(*current.cast::<MessageObject>()).extras;
        extras.as_ref().is_some_and(|extras| extras.reply_to.is_some())
    }
}

/// Tells `settled` what nobody has settled yet.
#[inline]
pub(crate) fn complete(pump: &Pump, result: &Ref) -> R<()> {
    let Some(settled) = &pump.settled else { return Ok(()) };
    for message in unsettled(pump) {
        settled.call(&[message.as_ptr(), result.as_ptr()])?;
    }
    Ok(())
}

/// The messages under way that are not settled.
pub(crate) fn unsettled(pump: &Pump) -> Vec<Ref> {
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
pub(crate) fn finished(pump: &Pump) -> Handled {
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
    waiting::granted(granted);
    pump.mailbox().wake_some(wake);
    pump.forget(messages);
    Handled::Settled
}

#[inline]
pub(crate) fn measure(pump: &Pump) {
    let began = pump.measured_ns.replace(0);
    if began != 0 {
        let mailbox = pump.mailbox();
        mailbox.core.record_handle(mailbox.clock.monotonic_ns().saturating_sub(began));
    }
}

/// Waits with the handler; others may take what is queued.
#[cold]
pub(crate) fn suspend(
    pump: &Pump,
    this: Object,
    phase: Phase,
    yielded: Ref,
    iterator: Ref,
) -> Handled {
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
