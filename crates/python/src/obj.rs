//! Owned references and the few calls of the C API that the hot path needs.
//!
//! `Py<T>` asks a thread-local on every drop whether it may decref; code here always runs attached, so `Ref` does not ask.

use std::cell::UnsafeCell;
use std::ptr::{self, NonNull};

use pyo3::PyClass;
use pyo3::ffi;
use pyo3::prelude::*;

/// A Python exception is set: the caller returns its error value, or takes the exception.
#[derive(Debug)]
pub(crate) struct Raised;

pub(crate) type R<T> = Result<T, Raised>;

impl From<Raised> for PyErr {
    fn from(_: Raised) -> PyErr {
        PyErr::fetch(attached())
    }
}

impl From<PyErr> for Raised {
    fn from(err: PyErr) -> Raised {
        err.restore(attached());
        Raised
    }
}

/// The token for code that CPython called.
pub(crate) fn attached<'py>() -> Python<'py> {
    // SAFETY: every entry into this crate comes from the interpreter, with the GIL held.
    unsafe { Python::assume_attached() }
}

/// An owned reference to a Python object; used only while attached.
#[repr(transparent)]
pub(crate) struct Ref(NonNull<ffi::PyObject>);

// SAFETY: the count is only touched with the GIL held.
unsafe impl Send for Ref {}
// SAFETY: as above.
unsafe impl Sync for Ref {}

impl Ref {
    /// Takes over a new reference; null means that an exception is set.
    ///
    /// # Safety
    /// `ptr` is null or a reference the caller owns.
    #[inline]
    pub(crate) unsafe fn steal(ptr: *mut ffi::PyObject) -> R<Ref> {
        NonNull::new(ptr).map(Ref).ok_or(Raised)
    }

    /// # Safety
    /// `ptr` is a live object.
    #[inline]
    pub(crate) unsafe fn borrow(ptr: *mut ffi::PyObject) -> Ref {
        // SAFETY: by contract.
        unsafe {
            ffi::Py_INCREF(ptr);
            Ref(NonNull::new_unchecked(ptr))
        }
    }

    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut ffi::PyObject {
        self.0.as_ptr()
    }

    #[inline]
    pub(crate) fn into_ptr(self) -> *mut ffi::PyObject {
        let ptr = self.0.as_ptr();
        std::mem::forget(self);
        ptr
    }

    pub(crate) fn none() -> Ref {
        // SAFETY: None is always alive.
        unsafe { Ref::borrow(ffi::Py_None()) }
    }

    #[inline]
    pub(crate) fn is_none(&self) -> bool {
        // SAFETY: only the address is read.
        self.as_ptr() == unsafe { ffi::Py_None() }
    }

    #[inline]
    pub(crate) fn refcount(&self) -> isize {
        // SAFETY: the object is alive.
        unsafe { ffi::Py_REFCNT(self.as_ptr()) }
    }

    pub(crate) fn as_py(&self) -> &Py<PyAny> {
        // SAFETY: both are a transparent non-null object pointer that owns one count.
        unsafe { &*ptr::from_ref(self).cast::<Py<PyAny>>() }
    }

    pub(crate) fn bind<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.as_py().bind(py)
    }

    #[inline]
    pub(crate) fn call(&self, args: &[*mut ffi::PyObject]) -> R<Ref> {
        // SAFETY: the arguments are live for the call.
        unsafe {
            Ref::steal(ffi::PyObject_Vectorcall(
                self.as_ptr(),
                args.as_ptr(),
                args.len(),
                ptr::null_mut(),
            ))
        }
    }

    /// Calls method `name` with `args`.
    pub(crate) fn method(&self, name: &Ref, args: &[*mut ffi::PyObject]) -> R<Ref> {
        let mut all = [ptr::null_mut(); 5];
        all[0] = self.as_ptr();
        all[1..=args.len()].copy_from_slice(args);
        // SAFETY: `all` holds self and the arguments, all live.
        unsafe {
            Ref::steal(ffi::PyObject_VectorcallMethod(
                name.as_ptr(),
                all.as_ptr(),
                args.len() + 1,
                ptr::null_mut(),
            ))
        }
    }

    pub(crate) fn attr(&self, name: &Ref) -> R<Ref> {
        // SAFETY: both are live.
        unsafe { Ref::steal(ffi::PyObject_GetAttr(self.as_ptr(), name.as_ptr())) }
    }

    pub(crate) fn set_attr(&self, name: &Ref, value: *mut ffi::PyObject) -> R<()> {
        // SAFETY: all are live.
        match unsafe { ffi::PyObject_SetAttr(self.as_ptr(), name.as_ptr(), value) } {
            0 => Ok(()),
            _ => Err(Raised),
        }
    }

    pub(crate) fn truthy(&self) -> R<bool> {
        // SAFETY: the object is alive.
        match unsafe { ffi::PyObject_IsTrue(self.as_ptr()) } {
            -1 => Err(Raised),
            answer => Ok(answer == 1),
        }
    }
}

impl Clone for Ref {
    #[inline]
    fn clone(&self) -> Ref {
        // SAFETY: the object is alive as long as `self`.
        unsafe { Ref::borrow(self.as_ptr()) }
    }
}

impl Drop for Ref {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this reference is owned, and the GIL is held.
        unsafe { ffi::Py_DECREF(self.as_ptr()) }
    }
}

impl From<Py<PyAny>> for Ref {
    fn from(object: Py<PyAny>) -> Ref {
        // SAFETY: `into_ptr` gives up its reference.
        unsafe { Ref(NonNull::new_unchecked(object.into_ptr())) }
    }
}

impl From<Bound<'_, PyAny>> for Ref {
    fn from(object: Bound<'_, PyAny>) -> Ref {
        Ref::from(object.unbind())
    }
}

impl From<&Bound<'_, PyAny>> for Ref {
    fn from(object: &Bound<'_, PyAny>) -> Ref {
        // SAFETY: a bound object is alive.
        unsafe { Ref::borrow(object.as_ptr()) }
    }
}

impl<'py> IntoPyObject<'py> for Ref {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = std::convert::Infallible;

    fn into_pyobject(self, py: Python<'py>) -> Result<Self::Output, Self::Error> {
        // SAFETY: the reference is handed over.
        Ok(unsafe { Bound::from_owned_ptr(py, self.into_ptr()) })
    }
}

/// State that the GIL guards: never borrowed across a call into Python.
pub(crate) struct GilCell<T>(UnsafeCell<T>);

// SAFETY: only one attached thread touches it at a time; see `get`.
unsafe impl<T> Sync for GilCell<T> {}
// SAFETY: as above.
unsafe impl<T> Send for GilCell<T> {}

impl<T: Default> Default for GilCell<T> {
    fn default() -> Self {
        GilCell::new(T::default())
    }
}

impl<T> GilCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        GilCell(UnsafeCell::new(value))
    }

    /// # Safety
    /// The borrow must end before anything that can run Python code (a call, a decref) and may not overlap another.
    #[allow(clippy::mut_from_ref)]
    #[inline]
    pub(crate) unsafe fn get(&self) -> &mut T {
        // SAFETY: by contract.
        unsafe { &mut *self.0.get() }
    }
}

/// A new Python exception of `kind` is set.
pub(crate) fn raise(kind: &Ref, text: &str) -> Raised {
    // SAFETY: the type is live; the text is copied.
    unsafe {
        let text = ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len() as isize);
        if !text.is_null() {
            ffi::PyErr_SetObject(kind.as_ptr(), text);
            ffi::Py_DECREF(text);
        }
    }
    Raised
}

/// Sets an exception object, with its traceback.
pub(crate) fn raise_object(exception: Ref) -> Raised {
    // SAFETY: the reference is handed over.
    unsafe {
        #[cfg(Py_3_12)]
        ffi::PyErr_SetRaisedException(exception.into_ptr());
        #[cfg(not(Py_3_12))]
        {
            let kind = ffi::Py_TYPE(exception.as_ptr()).cast::<ffi::PyObject>();
            ffi::Py_INCREF(kind);
            let traceback = ffi::PyException_GetTraceback(exception.as_ptr());
            ffi::PyErr_Restore(kind, exception.into_ptr(), traceback);
        }
    }
    Raised
}

/// Takes the exception that is set, with its traceback.
pub(crate) fn taken(_: Raised) -> Ref {
    // SAFETY: an exception is set, so the pointer that comes back is a new reference.
    unsafe {
        #[cfg(Py_3_12)]
        let value = ffi::PyErr_GetRaisedException();
        #[cfg(not(Py_3_12))]
        let value = {
            let (mut kind, mut value, mut traceback) =
                (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
            ffi::PyErr_Fetch(&mut kind, &mut value, &mut traceback);
            ffi::PyErr_NormalizeException(&mut kind, &mut value, &mut traceback);
            if !traceback.is_null() {
                ffi::PyException_SetTraceback(value, traceback);
                ffi::Py_DECREF(traceback);
            }
            ffi::Py_XDECREF(kind);
            value
        };
        debug_assert!(!value.is_null());
        Ref(NonNull::new_unchecked(value))
    }
}

/// Reports the exception that is set where nobody can catch it.
pub(crate) fn unraisable(_: Raised, context: *mut ffi::PyObject) {
    // SAFETY: an exception is set; `context` is live or null.
    unsafe { ffi::PyErr_WriteUnraisable(context) }
}

/// Keeps an exception in flight aside while a destructor runs.
pub(crate) fn preserving<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: plain error-indicator handling.
    let raised = unsafe { !ffi::PyErr_Occurred().is_null() };
    let saved = raised.then(|| taken(Raised));
    let answer = body();
    if let Some(exception) = saved {
        raise_object(exception);
    }
    answer
}

/// The `isinstance` test against an exception type.
pub(crate) fn is_exception(exception: &Ref, kind: &Ref) -> bool {
    // SAFETY: both are live.
    unsafe { ffi::PyErr_GivenExceptionMatches(exception.as_ptr(), kind.as_ptr()) != 0 }
}

/// An entry point from C: a panic becomes an exception instead of ending the process.
#[inline]
pub(crate) fn guarded<T>(failed: T, body: impl FnOnce() -> R<T>) -> T {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
        Ok(Ok(answer)) => answer,
        Ok(Err(Raised)) => failed,
        Err(_) => {
            // SAFETY: SystemError is always alive.
            let kind = unsafe { Ref::borrow(ffi::PyExc_SystemError) };
            raise(&kind, "the native core panicked: this is a bug in neuralcore");
            failed
        }
    }
}

/// As [`guarded`], for functions that answer an object.
#[inline]
pub(crate) fn guarded_object(body: impl FnOnce() -> R<Ref>) -> *mut ffi::PyObject {
    guarded(ptr::null_mut(), || body().map(Ref::into_ptr))
}

/// The Rust side of an instance of a frozen class.
///
/// # Safety
/// `object` is an instance of `T` that outlives the borrow.
#[inline]
pub(crate) unsafe fn frozen<'a, T>(object: *mut ffi::PyObject) -> &'a T
where
    T: PyClass<Frozen = pyo3::pyclass::boolean_struct::True> + Sync,
{
    // SAFETY: by contract; a frozen class hands out shared borrows freely.
    unsafe {
        let bound = Borrowed::from_ptr(attached(), object).cast_unchecked::<T>();
        &*ptr::from_ref(bound.get())
    }
}
