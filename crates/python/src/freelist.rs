//! Recycled memory of objects outside the garbage collector.

use pyo3::ffi;

use crate::obj::GilCell;

/// Enough for a batch in flight; beyond it the interpreter's allocator is as good.
const LIMIT: usize = 512;

pub(crate) struct Freelist(GilCell<Vec<*mut ffi::PyObject>>);

// SAFETY: touched only with the GIL held.
unsafe impl Sync for Freelist {}

impl Freelist {
    pub(crate) const fn new() -> Self {
        Freelist(GilCell::new(Vec::new()))
    }

    /// A new reference to an instance of `kind` whose fields are not initialised; null with MemoryError set.
    ///
    /// # Safety
    /// `kind` is always the same heap type of `size` bytes.
    #[inline]
    pub(crate) unsafe fn allocate(
        &self,
        kind: *mut ffi::PyTypeObject,
        size: usize,
    ) -> *mut ffi::PyObject {
        // SAFETY: recycled memory has the type's size; PyObject_Init sets type and count.
        unsafe {
            if let Some(object) = self.0.get().pop() {
                return ffi::PyObject_Init(object, kind);
            }
            let memory = ffi::PyObject_Malloc(size).cast::<ffi::PyObject>();
            if memory.is_null() {
                return ffi::PyErr_NoMemory();
            }
            ffi::PyObject_Init(memory, kind)
        }
    }

    /// # Safety
    /// `object` came from `allocate` and its fields are dropped.
    #[inline]
    pub(crate) unsafe fn free(&self, object: *mut ffi::PyObject) {
        // SAFETY: nothing refers to the object any more.
        unsafe {
            let kind = ffi::Py_TYPE(object);
            let list = self.0.get();
            if list.len() < LIMIT {
                list.push(object);
            } else {
                ffi::PyObject_Free(object.cast());
            }
            ffi::Py_DECREF(kind.cast());
        }
    }
}
