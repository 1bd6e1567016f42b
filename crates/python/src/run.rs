//! The plain front of what `publish_many` still has: items for one mailbox that need no more than a payload, entered in
//! one step of that mailbox.

use std::ptr;

use pyo3::ffi;

use crate::args::Object;
use crate::entry::Entry;
use crate::mailbox::Mailbox;
use crate::many::Many;
use crate::obj::{R, Raised, Ref, taken};
use crate::publish;
use crate::route::Route;

/// What is published, from a list at its index or from any other iterable.
pub(crate) struct Items {
    pub(crate) source: Ref,
    is_list: bool,
    next: isize,
}

/// Payloads are asked for so far ahead of their turn, and the tuples that hold them twice as far: what was built
/// beforehand has left the caches.
const AHEAD: isize = 6;

impl Items {
    /// # Safety
    /// `iterable` is a live object.
    pub(crate) unsafe fn new(iterable: Object) -> R<Items> {
        // SAFETY: by contract.
        unsafe {
            if ffi::PyList_CheckExact(iterable) != 0 {
                let items = Items { source: Ref::borrow(iterable), is_list: true, next: 0 };
                (0..2 * AHEAD).for_each(|distance| items.prefetch_item(distance));
                return Ok(items);
            }
            let source = Ref::steal(ffi::PyObject_GetIter(iterable))?;
            Ok(Items { source, is_list: false, next: 0 })
        }
    }

    /// How many are left, as far as that is known.
    pub(crate) fn left(&self) -> usize {
        if !self.is_list {
            return 0;
        }
        // SAFETY: the list is live.
        let len = unsafe { ffi::PyList_GET_SIZE(self.source.as_ptr()) };
        usize::try_from(len - self.next).unwrap_or(0)
    }

    /// The next one; None at the end.
    pub(crate) fn next(&mut self) -> R<Option<Ref>> {
        if let Some(item) = self.peek(0) {
            self.next += 1;
            // SAFETY: the list holds it.
            return Ok(Some(unsafe { Ref::borrow(item) }));
        }
        if self.is_list {
            return Ok(None);
        }
        // SAFETY: the iterator is live; null without an exception is its end.
        match unsafe { Ref::steal(ffi::PyIter_Next(self.source.as_ptr())) } {
            Ok(item) => Ok(Some(item)),
            Err(_) if crate::args::occurred() => Err(Raised),
            Err(_) => Ok(None),
        }
    }

    /// The one at a distance from the next, borrowed from the list, if there is a list and it goes so far.
    #[inline]
    fn peek(&self, distance: isize) -> Option<Object> {
        let index = self.next + distance;
        // SAFETY: the list is live, and looked at only inside its length of this moment.
        unsafe {
            let list = self.source.as_ptr();
            (self.is_list && index < ffi::PyList_GET_SIZE(list))
                .then(|| ffi::PyList_GET_ITEM(list, index))
        }
    }

    /// Channel and payload of the next one, borrowed, if it is nothing but these two.
    #[inline]
    fn pair(&self, distance: isize) -> Option<(Object, Object)> {
        let item = self.peek(distance)?;
        // SAFETY: the list holds the item, and the tuple what is in it.
        unsafe {
            let plain = ffi::PyTuple_CheckExact(item) != 0 && ffi::PyTuple_GET_SIZE(item) == 2;
            plain.then(|| (ffi::PyTuple_GET_ITEM(item, 0), ffi::PyTuple_GET_ITEM(item, 1)))
        }
    }

    #[inline]
    fn prefetch_item(&self, distance: isize) {
        if let Some(item) = self.peek(distance) {
            prefetch(item);
        }
    }

    #[inline]
    fn prefetch_payload(&self, distance: isize) {
        if let Some((_, payload)) = self.pair(distance) {
            prefetch(payload);
        }
    }
}

/// Asks for the memory of an object that will be needed.
#[inline]
fn prefetch(object: Object) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which touches nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(object.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = object;
}

/// Enters as many as are plain, go to one channel and have room, at most `limit`; answers how many.
///
/// Whatever is not plain, unknown or in the way is left to [`Many::publish`], one by one.
pub(crate) fn enter(many: &mut Many, limit: usize) -> usize {
    let Some((channel, _)) = many.items.pair(0) else { return 0 };
    // SAFETY: the channel is held from here on, the mailbox before anything else can run Python code.
    unsafe {
        let channel = Ref::borrow(channel);
        let Some(route_ref) = many.known(channel.as_ptr()) else { return 0 };
        let route = Route::of(&route_ref);
        let Some((rank, target)) = way(route) else { return 0 };
        let mailbox = Ref::borrow(target);
        if Mailbox::of(&mailbox).is_deserted() {
            return 0;
        }
        let router = route.router();
        let limit = many.items.left().min(limit);
        let begun_ns = publish::sampled_among(route, limit).then(|| router.clock.monotonic_ns());
        let first = router.ids.block(limit as u64);
        let mut seq = first.count;
        let stamp_ns = router.stamp_now();
        let items = &mut many.items;
        (0..AHEAD).for_each(|distance| items.prefetch_payload(distance));
        let plain = std::iter::from_fn(|| {
            let (other, payload) = items.pair(0)?;
            if !ptr::eq(other, channel.as_ptr()) {
                return None;
            }
            items.prefetch_item(2 * AHEAD);
            items.prefetch_payload(AHEAD);
            items.next += 1;
            let entry = Entry {
                payload: Ref::borrow(payload),
                route: Some(route_ref.clone()),
                extras: None,
                seq,
                stamp_ns,
            };
            seq += 1;
            Some(entry)
        });
        let (count, wake) = Mailbox::of(&mailbox).core.push_many(rank, plain.take(limit));
        if let (Some(begun_ns), 1..) = (begun_ns, count) {
            let elapsed = router.clock.monotonic_ns().saturating_sub(begun_ns);
            route.latency.record(elapsed / count as u64);
        }
        Mailbox::of(&mailbox).wake_some(wake);
        if Mailbox::of(&mailbox).is_deserted() {
            Mailbox::of(&mailbox).take_back(count);
            let exception = taken(publish::deserted(route));
            many.fail(count, &exception);
        } else {
            many.results.push_block(first, count);
            route.count(|counters| counters.published += count as u64);
        }
        count
    }
}

/// Rank and mailbox of what is published to a route without options, if that is all there is to it.
///
/// # Safety
/// The mailbox is borrowed: hold it before anything that can run Python code.
unsafe fn way(route: &Route) -> Option<(i64, Object)> {
    // SAFETY: by contract.
    let (rank, targets) = unsafe {
        if route.settings().path.is_some() {
            return None;
        }
        (publish::plain(route, None), route.targets())
    };
    match (rank, targets) {
        (Ok(Some(rank)), Ok(&[target])) => Some((rank, target)),
        (Ok(_), Ok(_)) => None,
        (Err(raised), _) | (_, Err(raised)) => {
            drop(taken(raised));
            None
        }
    }
}
