//! One step of a pump: from a resumption by its task to the next time it has to wait.

use pyo3::ffi;

use crate::args::Object;
use crate::drive::Entered;
use crate::entry::{Entry, Text};
use crate::globals::globals;
use crate::handle::{Handled, continued, fresh};
use crate::message::MessageObject;
use crate::obj::{R, Raised, Ref, raise, raise_object, taken};
use crate::pump::{Drive, Pump, State};
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
pub(crate) fn run(pump: &Pump, this: Object, handled: Handled) -> R<Output> {
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
pub(crate) struct Slice {
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
pub(crate) fn monotonic() -> u64 {
    neuralcore_bus::Clock::System.monotonic_ns()
}

pub(crate) fn singles(pump: &Pump, this: Object, mut handled: Handled) -> R<Output> {
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

pub(crate) fn batches(pump: &Pump, this: Object, mut handled: Handled) -> R<Output> {
    let mailbox = pump.mailbox();
    let mut slice = Slice::new(pump);
    loop {
        match handled {
            Handled::Done | Handled::Settled => {
                pump.current.take();
                pump.forget_messages();
            }
            Handled::Suspended(yielded) => return Ok(Output::Yield(yielded)),
            Handled::Ended(raised) => return Err(raised),
        }
        if pump.stopping.get() || slice.is_over() {
            return Ok(pause(pump));
        }
        let (messages, sampled) = collect(pump)?;
        if messages.is_empty() {
            pump.messages.set(messages);
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
pub(crate) fn collect(pump: &Pump) -> R<(Vec<Ref>, bool)> {
    let mailbox = pump.mailbox();
    let mut taken = pump.taken.take();
    mailbox.core.take_many(pump.batch, &mut taken);
    let mut messages = pump.messages.take();
    messages.reserve(taken.len());
    let mut sampled = false;
    let mut entries = taken.drain(..);
    while let Some(entry) = entries.next() {
        match mailbox.deliver(&pump.mailbox, entry) {
            Ok(None) => {}
            Ok(Some((message, measured))) => {
                sampled |= measured;
                messages.push(message);
            }
            Err(raised) => {
                let exception = taken_back(pump, messages, entries, raised);
                return Err(raise_object(exception));
            }
        }
    }
    drop(entries);
    pump.taken.set(taken);
    Ok((messages, sampled))
}

#[cold]
pub(crate) fn taken_back(
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

pub(crate) fn list(messages: &[Ref]) -> R<Ref> {
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
pub(crate) fn landed(pump: &Pump) -> Option<Ref> {
    let message = pump.current.take()?;
    // SAFETY: no other borrow of it is alive.
    unsafe { MessageObject::of(&message) }.finish().then_some(message)
}

pub(crate) fn acknowledge(pump: &Pump, finished: Option<Ref>) {
    if let Some(message) = finished {
        // SAFETY: only read while the mailbox works on it.
        pump.mailbox().finish(unsafe { MessageObject::of(&message) });
    }
}

/// Lets the loop run, or ends.
pub(crate) fn pause(pump: &Pump) -> Output {
    if pump.stopping.get() {
        return Output::Return;
    }
    pump.state.set(State::Yielded);
    Output::Yield(Ref::none())
}

pub(crate) enum Rest {
    Wait(Ref),
    Work,
    Over,
}

/// Waits for work. The future is there before the mailbox may choose this worker.
pub(crate) fn rest(pump: &Pump) -> R<Rest> {
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

pub(crate) fn close_iterator(pump: &Pump, iterator: &Ref) -> R<()> {
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
