//! The message that handlers get: outside the garbage collector, its memory recycled.

use std::mem::offset_of;
use std::ptr;

use pyo3::ffi;

use crate::entry::{Entry, Extras, Text};
use crate::freelist::Freelist;
use crate::globals::globals;
use crate::mailbox::Mailbox;
use crate::obj::{R, Raised, Ref};
use crate::route::Route;

const SETTLED: u8 = 1;
const LEASE_LOST: u8 = 2;
const IN_FLIGHT: u8 = 4;

#[repr(C)]
pub(crate) struct MessageObject {
    pub(crate) ob_base: ffi::PyObject,
    pub(crate) payload: Ref,
    pub(crate) channel: Ref,
    /// Whose settler its verbs call; None until it has been in a mailbox.
    pub(crate) mailbox: Option<Ref>,
    pub(crate) extras: Option<Box<Extras>>,
    /// The formatted id, once somebody asked or when it was given.
    pub(crate) id: Option<Ref>,
    pub(crate) prefix: u64,
    pub(crate) seq: u64,
    pub(crate) stamp_ns: i64,
    pub(crate) rank: i64,
    pub(crate) attempt: u32,
    flags: u8,
}

pub(crate) const PAYLOAD_OFFSET: usize = offset_of!(MessageObject, payload);
pub(crate) const CHANNEL_OFFSET: usize = offset_of!(MessageObject, channel);

static FREE: Freelist = Freelist::new();

/// The fields of a message under construction.
pub(crate) struct Parts {
    pub(crate) payload: Ref,
    pub(crate) channel: Ref,
    pub(crate) mailbox: Option<Ref>,
    pub(crate) extras: Option<Box<Extras>>,
    pub(crate) id: Option<Ref>,
    pub(crate) prefix: u64,
    pub(crate) seq: u64,
    pub(crate) stamp_ns: i64,
    pub(crate) rank: i64,
    pub(crate) attempt: u32,
}

impl Parts {
    #[inline]
    pub(crate) fn build(self) -> R<Ref> {
        // SAFETY: every field of the fresh object is written before anybody sees it.
        unsafe {
            let object = FREE
                .allocate(globals().message_type.as_ptr().cast(), size_of::<MessageObject>())
                .cast::<MessageObject>();
            if object.is_null() {
                return Err(Raised);
            }
            ptr::write(&raw mut (*object).payload, self.payload);
            ptr::write(&raw mut (*object).channel, self.channel);
            ptr::write(&raw mut (*object).mailbox, self.mailbox);
            ptr::write(&raw mut (*object).extras, self.extras);
            ptr::write(&raw mut (*object).id, self.id);
            (*object).prefix = self.prefix;
            (*object).seq = self.seq;
            (*object).stamp_ns = self.stamp_ns;
            (*object).rank = self.rank;
            (*object).attempt = self.attempt;
            (*object).flags = 0;
            Ref::steal(object.cast())
        }
    }
}

/// A queued entry as a message, in flight from `mailbox`, or of none when a publish was refused.
#[inline]
pub(crate) fn from_entry(entry: Entry, rank: i64, mailbox: Option<Ref>) -> R<Ref> {
    let Some(route) = &entry.route else {
        // SAFETY: without a route the payload is a ready-made message.
        let fields = unsafe { MessageObject::of(&entry.payload) };
        fields.rank = rank;
        let old = std::mem::replace(&mut fields.mailbox, mailbox);
        drop(old);
        return Ok(entry.payload);
    };
    let route = Route::of(route);
    Parts {
        channel: route.channel().clone(),
        prefix: route.router().ids.prefix(),
        id: entry.extras.as_ref().and_then(|extras| extras.message_id.clone()),
        payload: entry.payload,
        mailbox,
        extras: entry.extras,
        seq: entry.seq,
        stamp_ns: entry.stamp_ns,
        rank,
        attempt: 1,
    }
    .build()
}

impl MessageObject {
    /// # Safety
    /// `object` is a message, and no other borrow of it is alive.
    #[allow(clippy::mut_from_ref)]
    #[inline]
    pub(crate) unsafe fn of(object: &Ref) -> &mut MessageObject {
        // SAFETY: by contract.
        unsafe { &mut *object.as_ptr().cast::<MessageObject>() }
    }

    pub(crate) fn check(object: *mut ffi::PyObject) -> bool {
        // SAFETY: the caller passes a live object.
        unsafe { ptr::eq(ffi::Py_TYPE(object).cast(), globals().message_type.as_ptr()) }
    }

    #[inline]
    pub(crate) fn settled(&self) -> bool {
        self.flags & SETTLED != 0
    }

    /// Marks it settled; false when it already was.
    #[inline]
    pub(crate) fn settle(&mut self) -> bool {
        let first = !self.settled();
        self.flags |= SETTLED;
        first
    }

    pub(crate) fn lease_lost(&self) -> bool {
        self.flags & LEASE_LOST != 0
    }

    pub(crate) fn lose_lease(&mut self) {
        self.flags |= LEASE_LOST;
    }

    #[inline]
    pub(crate) fn start(&mut self) {
        self.flags |= IN_FLIGHT;
    }

    /// Ends its time in flight; false when its mailbox already has it back.
    #[inline]
    pub(crate) fn finish(&mut self) -> bool {
        let flying = self.flags & IN_FLIGHT != 0;
        self.flags &= !IN_FLIGHT;
        flying
    }

    pub(crate) fn key(&self) -> Option<&Text> {
        self.extras.as_ref()?.key.as_ref()
    }

    pub(crate) fn mailbox(&self) -> Option<&Mailbox> {
        self.mailbox.as_ref().map(Mailbox::of)
    }

    pub(crate) fn id(&mut self) -> R<Ref> {
        if self.id.is_none() {
            self.id = Some(crate::ids::formatted(self.prefix, self.seq)?);
        }
        self.id.clone().ok_or(Raised)
    }

    /// The next delivery of the same message, unsettled.
    pub(crate) fn again(&self, attempt: u32) -> R<Ref> {
        Parts {
            payload: self.payload.clone(),
            channel: self.channel.clone(),
            mailbox: self.mailbox.clone(),
            extras: self.extras.clone(),
            id: self.id.clone(),
            prefix: self.prefix,
            seq: self.seq,
            stamp_ns: self.stamp_ns,
            rank: self.rank,
            attempt,
        }
        .build()
    }

    pub(crate) fn traverse(&self, visit: &mut dyn FnMut(&Ref) -> bool) -> bool {
        visit(&self.payload)
            && self.mailbox.as_ref().is_none_or(&mut *visit)
            && self.extras.as_deref().is_none_or(|extras| extras.references().all(&mut *visit))
    }
}

/// Drops a payload. Messages inside messages are taken apart one by one: their destructors would nest as deep.
unsafe fn unnest(mut payload: Ref) {
    while payload.refcount() == 1 && MessageObject::check(payload.as_ptr()) {
        // SAFETY: nobody else has this message.
        let fields = unsafe { MessageObject::of(&payload) };
        let inner = std::mem::replace(&mut fields.payload, Ref::none());
        payload = inner;
    }
}

/// `tp_dealloc`.
pub(crate) unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: the last reference is gone; each owned field is dropped once.
    unsafe {
        let message = object.cast::<MessageObject>();
        unnest(ptr::read(&raw const (*message).payload));
        ptr::drop_in_place(&raw mut (*message).channel);
        ptr::drop_in_place(&raw mut (*message).mailbox);
        ptr::drop_in_place(&raw mut (*message).extras);
        ptr::drop_in_place(&raw mut (*message).id);
        FREE.free(object);
    }
}
