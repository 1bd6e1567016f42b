//! The Python face of a message: constructor, attributes, verbs.

use std::ffi::c_void;
use std::ptr;

use pyo3::ffi;

use crate::args::{Object, Signature, frozen, integer, string};
use crate::entry::{Extras, Text};
use crate::globals::globals;
use crate::message::{self, CHANNEL_OFFSET, MessageObject, PAYLOAD_OFFSET, Parts};
use crate::obj::{R, Raised, Ref, guarded_object, raise};
use crate::rawtype::TypeBuilder;

pub(crate) const PARAMETERS: [&str; 13] = [
    "channel",
    "payload",
    "id",
    "priority",
    "timestamp_ns",
    "headers",
    "key",
    "correlation_id",
    "reply_to",
    "expires_at_ns",
    "content_type",
    "attempt",
    "delivery",
];

pub(crate) fn build() -> R<Ref> {
    TypeBuilder::new::<MessageObject>(
        c"neuralcore._native.Message",
        c"Message(channel, payload, *, id, priority=50, timestamp_ns=0, headers=None, key=None, correlation_id=None, \
           reply_to=None, expires_at_ns=None, content_type=None, attempt=1, delivery=None)\n--\n\n\
           One delivery of a message, immutable to handlers.",
    )
    .slot(ffi::Py_tp_new, new as *mut c_void)
    .slot(ffi::Py_tp_dealloc, message::dealloc as *mut c_void)
    .slot(ffi::Py_tp_repr, repr as *mut c_void)
    .object_member(c"payload", PAYLOAD_OFFSET)
    .object_member(c"channel", CHANNEL_OFFSET)
    .getter(c"id", id)
    .getter(c"priority", priority)
    .getter(c"timestamp", timestamp)
    .getter(c"timestamp_ns", timestamp_ns)
    .getter(c"headers", headers)
    .getter(c"key", key)
    .getter(c"correlation_id", correlation_id)
    .getter(c"reply_to", reply_to)
    .getter(c"expires_at", expires_at)
    .getter(c"expires_at_ns", expires_at_ns)
    .getter(c"content_type", content_type)
    .getter(c"attempt", attempt)
    .getter(c"delivery", delivery)
    .getter(c"settled", settled)
    .getter(c"lease_lost", lease_lost)
    .keywords(c"reply", c"reply($self, payload)\n--\n\nAnswer a request.", reply)
    .no_args(c"ack", c"ack($self)\n--\n\nSettle as done.", ack)
    .keywords(c"nack", c"nack($self, delay=None)\n--\n\nCount a failed attempt and have it delivered again.", nack)
    .keywords(
        c"transaction",
        c"transaction($self, connection=None)\n--\n\nSettle it as done in a transaction.",
        transaction,
    )
    .keywords(c"reject", c"reject($self, reason='')\n--\n\nDead-letter it now.", reject)
    .no_args(c"release", c"release($self)\n--\n\nGive it back untouched.", release)
    .no_args(c"_settle", c"_settle($self)\n--\n\n", settle)
    .no_args(c"_lose_lease", c"_lose_lease($self)\n--\n\n", lose_lease)
    .one_arg(c"_set_payload", c"_set_payload($self, payload, /)\n--\n\n", set_payload)
    .build()
}

unsafe extern "C" fn new(_: *mut ffi::PyTypeObject, args: Object, kwargs: Object) -> Object {
    guarded_object(|| {
        let mut slots = [ptr::null_mut(); PARAMETERS.len()];
        let names = &globals().message_names;
        // SAFETY: CPython passes a tuple and a dict or null.
        unsafe {
            Signature { function: "Message", names, positional: 2, required: 3 }
                .bind_tuple(&mut slots, args, kwargs)?;
        }
        parts(slots)?.build()
    })
}

fn parts(slots: [Object; PARAMETERS.len()]) -> R<Parts> {
    let text = |index: usize| match given(slots[index]) {
        Some(value) => string(value, PARAMETERS[index]).map(Some),
        None => Ok(None),
    };
    let number = |index: usize| {
        given(slots[index]).map(|value| integer(value, PARAMETERS[index])).transpose()
    };
    let extras = Extras {
        headers: given(slots[5]).map_or(Ok(None), |mapping| frozen(&mapping))?,
        key: text(6)?.map(Text::new).transpose()?,
        correlation_id: text(7)?,
        reply_to: text(8)?,
        expires_at_ns: number(9)?,
        content_type: text(10)?,
        delivery: given(slots[12]),
        ..Extras::default()
    };
    let needed = extras.expires_at_ns.is_some() || extras.references().next().is_some();
    // SAFETY: `bind_tuple` saw to it that the first three were given.
    let payload = unsafe { Ref::borrow(slots[1]) };
    Ok(Parts {
        payload,
        channel: required_text(slots[0], "channel")?,
        id: Some(required_text(slots[2], "id")?),
        mailbox: None,
        extras: needed.then(|| Box::new(extras)),
        prefix: 0,
        seq: 0,
        rank: number(3)?.unwrap_or(50),
        stamp_ns: number(4)?.unwrap_or(0),
        attempt: attempts(number(11)?.unwrap_or(1))?,
    })
}

fn given(slot: Object) -> Option<Ref> {
    // SAFETY: a slot is null or a live object.
    unsafe { (!slot.is_null() && slot != ffi::Py_None()).then(|| Ref::borrow(slot)) }
}

fn required_text(slot: Object, name: &str) -> R<Ref> {
    // SAFETY: required arguments are never null.
    string(unsafe { Ref::borrow(slot) }, name)
}

fn attempts(number: i64) -> R<u32> {
    u32::try_from(number)
        .map_err(|_| raise(&globals().value_error, &format!("attempt counts from 1, not {number}")))
}

unsafe extern "C" fn repr(object: Object) -> Object {
    guarded_object(|| {
        let message = message(object);
        let id = Text::new(message.id()?)?;
        // SAFETY: the channel is a live str.
        let channel =
            unsafe { Text::new(Ref::steal(ffi::PyObject_Repr(message.channel.as_ptr()))?)? };
        let text = format!(
            "<Message {} on {}: priority {}, attempt {}{}>",
            id.as_str(),
            channel.as_str(),
            message.rank,
            message.attempt,
            if message.settled() { ", settled" } else { "" }
        );
        // SAFETY: valid UTF-8.
        unsafe {
            Ref::steal(ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len() as isize))
        }
    })
}

fn message<'a>(object: Object) -> &'a mut MessageObject {
    // SAFETY: CPython checked the type of self, and no borrow outlives one call.
    unsafe { &mut *object.cast::<MessageObject>() }
}

macro_rules! getters {
    ($($name:ident($message:ident) $body:expr;)*) => {$(
        unsafe extern "C" fn $name(object: Object, _: *mut c_void) -> Object {
            guarded_object(|| { let $message = message(object); $body })
        }
    )*};
}

getters! {
    id(message) message.id();
    priority(message) int(message.rank);
    timestamp(message) float(message.stamp_ns);
    timestamp_ns(message) int(message.stamp_ns);
    headers(message) Ok(extra(message, |extras| extras.headers.as_ref()).unwrap_or_else(|| globals().no_headers.clone()));
    key(message) Ok(extra(message, |extras| extras.key.as_ref().map(Text::object)).unwrap_or_else(Ref::none));
    correlation_id(message) Ok(extra(message, |extras| extras.correlation_id.as_ref()).unwrap_or_else(Ref::none));
    reply_to(message) Ok(extra(message, |extras| extras.reply_to.as_ref()).unwrap_or_else(Ref::none));
    expires_at(message) expiry(message).map_or_else(|| Ok(Ref::none()), float);
    expires_at_ns(message) expiry(message).map_or_else(|| Ok(Ref::none()), int);
    content_type(message) Ok(extra(message, |extras| extras.content_type.as_ref()).unwrap_or_else(Ref::none));
    attempt(message) int(message.attempt.into());
    delivery(message) Ok(extra(message, |extras| extras.delivery.as_ref()).unwrap_or_else(Ref::none));
    settled(message) Ok(boolean(message.settled()));
    lease_lost(message) Ok(boolean(message.lease_lost()));
}

fn extra<'a>(
    message: &'a MessageObject,
    field: impl Fn(&'a Extras) -> Option<&'a Ref>,
) -> Option<Ref> {
    message.extras.as_deref().and_then(field).cloned()
}

fn expiry(message: &MessageObject) -> Option<i64> {
    message.extras.as_ref()?.expires_at_ns
}

fn int(value: i64) -> R<Ref> {
    // SAFETY: answers a new reference or null.
    unsafe { Ref::steal(ffi::PyLong_FromLongLong(value)) }
}

fn float(nanoseconds: i64) -> R<Ref> {
    // SAFETY: as above.
    unsafe { Ref::steal(ffi::PyFloat_FromDouble(nanoseconds as f64 / 1e9)) }
}

pub(crate) fn boolean(value: bool) -> Ref {
    // SAFETY: both are always alive.
    unsafe { Ref::borrow(if value { ffi::Py_True() } else { ffi::Py_False() }) }
}

fn settler(object: Object) -> R<Ref> {
    match message(object).mailbox() {
        Some(mailbox) => mailbox.settler().ok_or_else(|| {
            raise(&globals().runtime_error, "the message's mailbox was garbage-collected")
        }),
        None => {
            let id = Text::new(message(object).id()?)?;
            let text = format!(
                "message {} was not delivered by a mailbox, so there is nothing to settle it with",
                id.as_str()
            );
            Err(raise(&globals().runtime_error, &text))
        }
    }
}

/// A verb with one optional argument.
unsafe fn verb(
    object: Object,
    name: &Ref,
    signature: Signature<'_>,
    call: (*const Object, isize, Object),
    default: impl FnOnce() -> Ref,
) -> R<Ref> {
    let mut slots = [ptr::null_mut()];
    // SAFETY: CPython's own arguments.
    unsafe { signature.bind(&mut slots, call.0, call.1, call.2)? };
    // SAFETY: a bound slot is live.
    let argument = if slots[0].is_null() { default() } else { unsafe { Ref::borrow(slots[0]) } };
    settler(object)?.method(name, &[object, argument.as_ptr()])
}

unsafe extern "C" fn reply(o: Object, args: *const Object, n: isize, names: Object) -> Object {
    let g = globals();
    let signature = Signature {
        function: "reply",
        names: std::slice::from_ref(&g.payload),
        positional: 1,
        required: 1,
    };
    // SAFETY: CPython's own arguments.
    guarded_object(|| unsafe { verb(o, &g.reply, signature, (args, n, names), Ref::none) })
}

unsafe extern "C" fn nack(o: Object, args: *const Object, n: isize, names: Object) -> Object {
    let g = globals();
    let signature = Signature {
        function: "nack",
        names: std::slice::from_ref(&g.delay),
        positional: 1,
        required: 0,
    };
    // SAFETY: CPython's own arguments.
    guarded_object(|| unsafe { verb(o, &g.nack, signature, (args, n, names), Ref::none) })
}

unsafe extern "C" fn reject(o: Object, args: *const Object, n: isize, names: Object) -> Object {
    let g = globals();
    let signature = Signature {
        function: "reject",
        names: std::slice::from_ref(&g.reason),
        positional: 1,
        required: 0,
    };
    // SAFETY: CPython's own arguments.
    guarded_object(|| unsafe {
        verb(o, &g.reject, signature, (args, n, names), || g.empty.clone())
    })
}

unsafe extern "C" fn transaction(
    o: Object,
    args: *const Object,
    n: isize,
    names: Object,
) -> Object {
    let g = globals();
    let signature = Signature {
        function: "transaction",
        names: std::slice::from_ref(&g.connection),
        positional: 1,
        required: 0,
    };
    // SAFETY: CPython's own arguments.
    guarded_object(|| unsafe { verb(o, &g.transaction, signature, (args, n, names), Ref::none) })
}

unsafe extern "C" fn ack(object: Object, _: Object) -> Object {
    guarded_object(|| settler(object)?.method(&globals().ack, &[object]))
}

unsafe extern "C" fn release(object: Object, _: Object) -> Object {
    guarded_object(|| settler(object)?.method(&globals().release, &[object]))
}

unsafe extern "C" fn settle(object: Object, _: Object) -> Object {
    guarded_object(|| Ok(boolean(message(object).settle())))
}

unsafe extern "C" fn lose_lease(object: Object, _: Object) -> Object {
    guarded_object(|| {
        message(object).lose_lease();
        Ok(Ref::none())
    })
}

unsafe extern "C" fn set_payload(object: Object, payload: Object) -> Object {
    guarded_object(|| {
        // SAFETY: the argument is live; the old payload is dropped after it is replaced.
        let old = unsafe { std::mem::replace(&mut message(object).payload, Ref::borrow(payload)) };
        drop(old);
        Ok(Ref::none())
    })
}

/// A message argument of a method.
pub(crate) fn expect(object: &Ref) -> R<()> {
    if MessageObject::check(object.as_ptr()) {
        return Ok(());
    }
    let _: Raised = raise(&globals().type_error, "expected a Message");
    Err(Raised)
}
