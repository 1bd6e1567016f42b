//! How a mailbox knows a publisher that waits.

use pyo3::ffi;

use crate::obj::Ref;

/// A publisher that waits, known by the address of its awaitable; the awaitable withdraws it before it dies.
#[derive(Clone, Copy)]
pub(crate) struct Ticket(usize);

impl Ticket {
    /// Asks whether a reservation would wait; withdrawn at once.
    pub(crate) const PROBE: Ticket = Ticket(0);

    pub(crate) fn of(object: *mut ffi::PyObject) -> Ticket {
        Ticket(object as usize)
    }

    pub(crate) fn is(self, object: *mut ffi::PyObject) -> bool {
        self.0 == object as usize
    }

    pub(crate) fn address(self) -> *mut ffi::PyObject {
        self.0 as *mut ffi::PyObject
    }

    pub(crate) fn is_probe(self) -> bool {
        self.0 == 0
    }

    /// References to the awaitables of all: one that goes on may end another, which only its reference keeps alive then.
    #[inline]
    pub(crate) fn into_objects(tickets: impl IntoIterator<Item = Ticket>) -> Vec<Ref> {
        tickets.into_iter().map(Ticket::into_object).collect()
    }

    /// A reference to the awaitable.
    pub(crate) fn into_object(self) -> Ref {
        // SAFETY: the awaitable withdraws its ticket before it is freed.
        unsafe { Ref::borrow(self.0 as *mut ffi::PyObject) }
    }
}
