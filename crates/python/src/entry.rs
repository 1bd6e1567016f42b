//! What a mailbox queues: small, and without a Python object of its own.

use neuralcore_bus::Keyed;
use pyo3::ffi;

use crate::message::MessageObject;
use crate::obj::Ref;

/// Marks an entry whose payload is a ready-made message.
const READY_MADE: u64 = u64::MAX;

/// One queued delivery.
pub(crate) struct Entry {
    /// The payload, or the ready-made message.
    pub(crate) payload: Ref,
    /// The route it came by; None for a ready-made message.
    pub(crate) route: Option<Ref>,
    pub(crate) extras: Option<Box<Extras>>,
    /// The counter half of its id.
    pub(crate) seq: u64,
    /// Wall clock at publication.
    pub(crate) stamp_ns: i64,
}

const _: () = assert!(size_of::<Entry>() == 40);

/// What most messages do without.
#[derive(Clone, Default)]
pub(crate) struct Extras {
    /// A read-only mapping that nobody else can change.
    pub(crate) headers: Option<Ref>,
    pub(crate) key: Option<Text>,
    pub(crate) correlation_id: Option<Ref>,
    pub(crate) reply_to: Option<Ref>,
    pub(crate) content_type: Option<Ref>,
    pub(crate) message_id: Option<Ref>,
    pub(crate) delivery: Option<Ref>,
    pub(crate) expires_at_ns: Option<i64>,
    /// Monotonic: when it became due, if it was delayed.
    pub(crate) due_ns: u64,
}

/// A string with its UTF-8 form at hand.
#[derive(Clone)]
pub(crate) struct Text {
    object: Ref,
    utf8: *const u8,
    len: usize,
}

// SAFETY: the bytes belong to the string object and never change; they are read with the GIL held.
unsafe impl Send for Text {}
// SAFETY: as above.
unsafe impl Sync for Text {}

impl Text {
    /// `object` is a str; fails on lone surrogates.
    pub(crate) fn new(object: Ref) -> crate::obj::R<Text> {
        let mut len = 0;
        // SAFETY: the object is a live str, which keeps its UTF-8 form as long as it lives.
        let utf8 = unsafe { ffi::PyUnicode_AsUTF8AndSize(object.as_ptr(), &mut len) };
        if utf8.is_null() {
            return Err(crate::obj::Raised);
        }
        Ok(Text { object, utf8: utf8.cast(), len: len as usize })
    }

    pub(crate) fn object(&self) -> &Ref {
        &self.object
    }

    pub(crate) fn as_str(&self) -> &str {
        // SAFETY: CPython wrote valid UTF-8, and `object` keeps it alive.
        unsafe { std::str::from_utf8_unchecked(std::slice::from_raw_parts(self.utf8, self.len)) }
    }
}

impl Extras {
    pub(crate) fn references(&self) -> impl Iterator<Item = &Ref> {
        [
            &self.headers,
            &self.correlation_id,
            &self.reply_to,
            &self.content_type,
            &self.message_id,
            &self.delivery,
        ]
        .into_iter()
        .flatten()
        .chain(self.key.as_ref().map(Text::object))
    }
}

impl Entry {
    pub(crate) fn ready_made(message: Ref) -> Entry {
        Entry { payload: message, route: None, extras: None, seq: READY_MADE, stamp_ns: 0 }
    }

    pub(crate) fn is_ready_made(&self) -> bool {
        self.seq == READY_MADE
    }

    pub(crate) fn message(&self) -> Option<&MessageObject> {
        // SAFETY: a ready-made entry's payload is a live message.
        self.is_ready_made().then(|| unsafe { &*self.payload.as_ptr().cast::<MessageObject>() })
    }

    pub(crate) fn extras(&self) -> Option<&Extras> {
        match self.message() {
            Some(message) => message.extras.as_deref(),
            None => self.extras.as_deref(),
        }
    }

    pub(crate) fn copied(&self) -> Entry {
        Entry {
            payload: self.payload.clone(),
            route: self.route.clone(),
            extras: self.extras.clone(),
            seq: self.seq,
            stamp_ns: self.stamp_ns,
        }
    }

    /// Shows the collector what this entry owns. A message that only this entry refers to is looked through, since
    /// messages themselves are outside the collector.
    pub(crate) fn traverse(&self, visit: &mut dyn FnMut(&Ref) -> bool) -> bool {
        if let Some(message) = self.message() {
            return self.payload.refcount() != 1 || message.traverse(visit);
        }
        visit(&self.payload)
            && self.route.as_ref().is_none_or(&mut *visit)
            && self.extras.as_deref().is_none_or(|extras| extras.references().all(&mut *visit))
    }
}

impl Keyed for Entry {
    #[inline]
    fn key(&self) -> Option<&str> {
        if self.extras.is_none() && !self.is_ready_made() {
            return None;
        }
        self.extras()?.key.as_ref().map(Text::as_str)
    }
}
