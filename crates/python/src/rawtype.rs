//! Types made with `PyType_FromSpec`: for the objects that exist once a message and need slots that `#[pyclass]` lacks.

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::ptr;

use pyo3::ffi;

use crate::obj::{R, Ref};

pub(crate) type Getter =
    unsafe extern "C" fn(*mut ffi::PyObject, *mut c_void) -> *mut ffi::PyObject;
pub(crate) type Setter =
    unsafe extern "C" fn(*mut ffi::PyObject, *mut ffi::PyObject, *mut c_void) -> c_int;
/// The arguments are CPython's, never written to.
pub(crate) type Fast =
    unsafe extern "C" fn(*mut ffi::PyObject, *mut *mut ffi::PyObject, isize) -> *mut ffi::PyObject;
pub(crate) type FastKeywords = unsafe extern "C" fn(
    *mut ffi::PyObject,
    *const *mut ffi::PyObject,
    isize,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;

/// Collects slots, methods and attributes; what CPython keeps pointers to is leaked once per type.
pub(crate) struct TypeBuilder {
    name: &'static CStr,
    size: usize,
    flags: u64,
    slots: Vec<ffi::PyType_Slot>,
    methods: Vec<ffi::PyMethodDef>,
    getset: Vec<ffi::PyGetSetDef>,
    members: Vec<ffi::PyMemberDef>,
}

impl TypeBuilder {
    /// A final type without a constructor.
    pub(crate) fn new<T>(name: &'static CStr, doc: &'static CStr) -> Self {
        let builder = TypeBuilder {
            name,
            size: size_of::<T>(),
            flags: ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_IMMUTABLETYPE,
            slots: Vec::new(),
            methods: Vec::new(),
            getset: Vec::new(),
            members: Vec::new(),
        };
        builder.slot(ffi::Py_tp_doc, doc.as_ptr() as *mut c_void)
    }

    pub(crate) fn slot(mut self, slot: c_int, pfunc: *mut c_void) -> Self {
        self.slots.push(ffi::PyType_Slot { slot, pfunc });
        self
    }

    pub(crate) fn collected(mut self, traverse: ffi::traverseproc, clear: ffi::inquiry) -> Self {
        self.flags |= ffi::Py_TPFLAGS_HAVE_GC;
        self.slot(ffi::Py_tp_traverse, traverse as *mut c_void)
            .slot(ffi::Py_tp_clear, clear as *mut c_void)
    }

    /// `doc` begins with the signature, in the form that `inspect` reads.
    pub(crate) fn fast(self, name: &'static CStr, doc: &'static CStr, function: Fast) -> Self {
        self.def(
            (name, doc),
            ffi::PyMethodDefPointer { PyCFunctionFast: function },
            ffi::METH_FASTCALL,
        )
    }

    pub(crate) fn no_args(
        self,
        name: &'static CStr,
        doc: &'static CStr,
        function: ffi::PyCFunction,
    ) -> Self {
        self.def((name, doc), ffi::PyMethodDefPointer { PyCFunction: function }, ffi::METH_NOARGS)
    }

    pub(crate) fn one_arg(
        self,
        name: &'static CStr,
        doc: &'static CStr,
        function: ffi::PyCFunction,
    ) -> Self {
        self.def((name, doc), ffi::PyMethodDefPointer { PyCFunction: function }, ffi::METH_O)
    }

    pub(crate) fn keywords(
        self,
        name: &'static CStr,
        doc: &'static CStr,
        function: FastKeywords,
    ) -> Self {
        self.def(
            (name, doc),
            ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: function },
            ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        )
    }

    fn def(
        mut self,
        (name, doc): (&'static CStr, &'static CStr),
        meth: ffi::PyMethodDefPointer,
        flags: c_int,
    ) -> Self {
        self.methods.push(ffi::PyMethodDef {
            ml_name: name.as_ptr(),
            ml_meth: meth,
            ml_flags: flags,
            ml_doc: doc.as_ptr(),
        });
        self
    }

    pub(crate) fn getter(self, name: &'static CStr, get: Getter) -> Self {
        self.attribute(name, get, None)
    }

    pub(crate) fn attribute(
        mut self,
        name: &'static CStr,
        get: Getter,
        set: Option<Setter>,
    ) -> Self {
        self.getset.push(ffi::PyGetSetDef {
            name: name.as_ptr(),
            get: Some(get),
            set,
            doc: ptr::null(),
            closure: ptr::null_mut(),
        });
        self
    }

    /// A read-only attribute that is a plain object pointer in the instance: the interpreter reads it without a call.
    pub(crate) fn object_member(self, name: &'static CStr, offset: usize) -> Self {
        self.member(name, ffi::Py_T_OBJECT_EX, offset)
    }

    pub(crate) fn weakrefs(self, offset: usize) -> Self {
        self.member(c"__weaklistoffset__", ffi::Py_T_PYSSIZET, offset)
    }

    fn member(mut self, name: &'static CStr, kind: c_int, offset: usize) -> Self {
        self.members.push(ffi::PyMemberDef {
            name: name.as_ptr(),
            type_code: kind,
            offset: offset as isize,
            flags: ffi::Py_READONLY,
            doc: ptr::null(),
        });
        self
    }

    pub(crate) fn build(mut self) -> R<Ref> {
        let constructible = self.slots.iter().any(|slot| slot.slot == ffi::Py_tp_new);
        if !constructible {
            self.flags |= ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
        }
        self.methods.push(ffi::PyMethodDef::zeroed());
        self.getset.push(ffi::PyGetSetDef::default());
        self.members.push(ffi::PyMemberDef::default());
        self.slots.push(ffi::PyType_Slot { slot: ffi::Py_tp_methods, pfunc: leak(self.methods) });
        self.slots.push(ffi::PyType_Slot { slot: ffi::Py_tp_getset, pfunc: leak(self.getset) });
        self.slots.push(ffi::PyType_Slot { slot: ffi::Py_tp_members, pfunc: leak(self.members) });
        self.slots.push(ffi::PyType_Slot::default());
        let mut spec = ffi::PyType_Spec {
            name: self.name.as_ptr(),
            basicsize: self.size as c_int,
            itemsize: 0,
            flags: self.flags as c_uint,
            slots: self.slots.as_mut_ptr(),
        };
        // SAFETY: the slots end with a zeroed one, and what CPython keeps is leaked.
        unsafe { Ref::steal(ffi::PyType_FromSpec(&mut spec)) }
    }
}

fn leak<T>(items: Vec<T>) -> *mut c_void {
    Box::leak(items.into_boxed_slice()).as_mut_ptr().cast()
}

/// Adds a vectorcall method with keyword names to a type that PyO3 made.
pub(crate) fn add_method(
    kind: *mut ffi::PyTypeObject,
    (name, doc): (&'static CStr, &'static CStr),
    function: FastKeywords,
) -> R<()> {
    let def = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: function },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: doc.as_ptr(),
    }));
    // SAFETY: the definition lives for ever; the type is live.
    unsafe {
        let method = Ref::steal(ffi::PyDescr_NewMethod(kind, def))?;
        match ffi::PyObject_SetAttrString(kind.cast(), name.as_ptr(), method.as_ptr()) {
            0 => Ok(()),
            _ => Err(crate::obj::Raised),
        }
    }
}
