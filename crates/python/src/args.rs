//! Arguments of the vectorcall methods, and the options of a publish.

use std::ptr;

use pyo3::ffi;

use crate::entry::{Extras, Text};
use crate::globals::globals;
use crate::obj::{R, Raised, Ref, raise};

pub(crate) type Object = *mut ffi::PyObject;

/// The parameters of one function: the first `positional` may be given by place, the first `required` must be given.
pub(crate) struct Signature<'a> {
    pub(crate) function: &'static str,
    pub(crate) names: &'a [Ref],
    pub(crate) positional: usize,
    pub(crate) required: usize,
}

impl Signature<'_> {
    /// Sorts the arguments of a vectorcall into `slots`, one per name; null where none was given.
    ///
    /// # Safety
    /// `args` and `kwnames` are as CPython passes them to a method with METH_FASTCALL and METH_KEYWORDS.
    pub(crate) unsafe fn bind(
        &self,
        slots: &mut [Object],
        args: *const Object,
        nargs: isize,
        kwnames: Object,
    ) -> R<()> {
        let nargs = nargs as usize;
        // SAFETY: `args` holds `nargs` values and then one for each name in `kwnames`.
        unsafe {
            self.place(slots, args, nargs)?;
            if !kwnames.is_null() {
                for index in 0..ffi::PyTuple_GET_SIZE(kwnames) {
                    let value = *args.add(nargs + index as usize);
                    self.keyword(slots, ffi::PyTuple_GET_ITEM(kwnames, index), value)?;
                }
            }
        }
        self.complete(slots)
    }

    /// The same for `tp_new`: a tuple and a dict or null.
    ///
    /// # Safety
    /// `args` and `kwargs` are as CPython passes them.
    pub(crate) unsafe fn bind_tuple(
        &self,
        slots: &mut [Object],
        args: Object,
        kwargs: Object,
    ) -> R<()> {
        // SAFETY: a tuple's items are contiguous.
        unsafe {
            let items = (&raw const (*args.cast::<ffi::PyTupleObject>()).ob_item).cast::<Object>();
            self.place(slots, items, ffi::PyTuple_GET_SIZE(args) as usize)?;
            if !kwargs.is_null() {
                self.keywords(slots, kwargs)?;
            }
        }
        self.complete(slots)
    }

    #[inline]
    unsafe fn place(&self, slots: &mut [Object], args: *const Object, nargs: usize) -> R<()> {
        if nargs > self.positional {
            return Err(self.mistake(&format!(
                "takes {} positional arguments but {nargs} were given",
                self.positional
            )));
        }
        for (index, slot) in slots[..nargs].iter_mut().enumerate() {
            // SAFETY: by contract of `bind`.
            *slot = unsafe { *args.add(index) };
        }
        Ok(())
    }

    /// Adds the entries of a dict.
    ///
    /// # Safety
    /// `kwargs` is a live dict.
    pub(crate) unsafe fn keywords(&self, slots: &mut [Object], kwargs: Object) -> R<()> {
        let (mut at, mut name, mut value) = (0, ptr::null_mut(), ptr::null_mut());
        // SAFETY: matching names runs no code that could change the dict.
        unsafe {
            while ffi::PyDict_Next(kwargs, &mut at, &mut name, &mut value) != 0 {
                self.keyword(slots, name, value)?;
            }
        }
        Ok(())
    }

    #[inline]
    unsafe fn keyword(&self, slots: &mut [Object], name: Object, value: Object) -> R<()> {
        // Names written in source are interned, so the address nearly always decides.
        let known = self
            .names
            .iter()
            .position(|known| known.as_ptr() == name)
            // SAFETY: `name` is live.
            .or_else(|| unsafe { self.spelled(name) });
        let Some(index) = known else {
            // SAFETY: as above.
            return Err(self.mistake(&format!("got an unexpected keyword argument {}", unsafe {
                display(name)
            })));
        };
        if !slots[index].is_null() {
            // SAFETY: as above.
            return Err(self.mistake(&format!("got multiple values for argument {}", unsafe {
                display(name)
            })));
        }
        slots[index] = value;
        Ok(())
    }

    #[cold]
    unsafe fn spelled(&self, name: Object) -> Option<usize> {
        // SAFETY: comparing two str objects.
        unsafe {
            if ffi::PyUnicode_Check(name) == 0 {
                return None;
            }
            self.names.iter().position(|known| ffi::PyUnicode_Compare(known.as_ptr(), name) == 0)
        }
    }

    fn complete(&self, slots: &[Object]) -> R<()> {
        match slots[..self.required].iter().position(|slot| slot.is_null()) {
            None => Ok(()),
            Some(index) => {
                // SAFETY: names are live.
                let name = unsafe { display(self.names[index].as_ptr()) };
                Err(self.mistake(&format!("missing required argument {name}")))
            }
        }
    }

    #[cold]
    fn mistake(&self, what: &str) -> Raised {
        raise(&globals().type_error, &format!("{}() {what}", self.function))
    }
}

unsafe fn display(name: Object) -> String {
    // SAFETY: `name` is live; a failure leaves a placeholder and no exception.
    unsafe {
        match Ref::steal(ffi::PyObject_Repr(name)).and_then(Text::new) {
            Ok(text) => text.as_str().to_owned(),
            Err(_) => {
                ffi::PyErr_Clear();
                "<name>".to_owned()
            }
        }
    }
}

/// What one publish asks for beside channel and payload.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) priority: Option<i64>,
    pub(crate) ttl_ns: Option<i64>,
    pub(crate) delay_ns: Option<u64>,
    pub(crate) not_before_ns: Option<i64>,
    pub(crate) extras: Option<Box<Extras>>,
    /// Only to be refused by name.
    pub(crate) idempotency_key: Option<Ref>,
    pub(crate) mandatory: bool,
}

/// The publish parameters, in the order of [`PUBLISH_NAMES`] from `priority` on.
pub(crate) const OPTION_COUNT: usize = 12;

pub(crate) const PUBLISH_NAMES: [&str; OPTION_COUNT + 2] = [
    "channel",
    "payload",
    "priority",
    "headers",
    "key",
    "ttl",
    "delay",
    "not_before",
    "correlation_id",
    "reply_to",
    "content_type",
    "message_id",
    "idempotency_key",
    "mandatory",
];

impl Options {
    /// # Safety
    /// `slots` are the options in order: null or live objects.
    pub(crate) unsafe fn read(slots: &[Object; OPTION_COUNT]) -> R<Options> {
        let [
            priority,
            headers,
            key,
            ttl,
            delay,
            not_before,
            correlation_id,
            reply_to,
            content_type,
            message_id,
            idempotency_key,
            mandatory,
        ] = slots.map(given);
        let mut options = Options {
            priority: priority.map(rank).transpose()?,
            ttl_ns: ttl.map(|value| nanoseconds(value, "ttl")).transpose()?,
            delay_ns: match delay {
                Some(value) => Some(nanoseconds(value, "delay")?.max(0) as u64),
                None => None,
            },
            not_before_ns: not_before.map(|value| nanoseconds(value, "not_before")).transpose()?,
            extras: None,
            idempotency_key,
            mandatory: match mandatory {
                Some(value) => value.truthy()?,
                None => false,
            },
        };
        let extras = Extras {
            headers: match headers {
                Some(value) => frozen(&value)?,
                None => None,
            },
            key: match key {
                Some(value) => Some(Text::new(string(value, "key")?)?),
                None => None,
            },
            correlation_id: correlation_id
                .map(|value| string(value, "correlation_id"))
                .transpose()?,
            reply_to: reply_to.map(|value| string(value, "reply_to")).transpose()?,
            content_type: content_type.map(|value| string(value, "content_type")).transpose()?,
            message_id: message_id.map(identity).transpose()?,
            ..Extras::default()
        };
        if extras.references().next().is_some() {
            options.extras = Some(Box::new(extras));
        }
        Ok(options)
    }
}

/// None and a missing argument mean the same.
fn given(slot: Object) -> Option<Ref> {
    // SAFETY: a slot is null or a live object.
    unsafe { if slot.is_null() || slot == ffi::Py_None() { None } else { Some(Ref::borrow(slot)) } }
}

pub(crate) fn integer(value: Ref, name: &str) -> R<i64> {
    // SAFETY: the object is live.
    match unsafe { ffi::PyLong_AsLongLong(value.as_ptr()) } {
        -1 if occurred() => Err(mistyped(&value, name, "an integer")),
        number => Ok(number),
    }
}

/// Seconds to nanoseconds; what is beyond the range is the end of the range.
pub(crate) fn nanoseconds(value: Ref, name: &str) -> R<i64> {
    // SAFETY: the object is live.
    let seconds = unsafe { ffi::PyFloat_AsDouble(value.as_ptr()) };
    if seconds == -1.0 && occurred() {
        return Err(mistyped(&value, name, "a number of seconds"));
    }
    if !seconds.is_finite() {
        let text = format!("{name} is a finite number of seconds, not {seconds}");
        return Err(raise(&globals().value_error, &text));
    }
    Ok((seconds * 1e9).round() as i64)
}

/// A conversion failed: a TypeError says what it was about and what was given, any other error travels on.
#[cold]
fn mistyped(value: &Ref, name: &str, wanted: &str) -> Raised {
    let kind = &globals().type_error;
    // SAFETY: an error is set, and the object is live.
    unsafe {
        if ffi::PyErr_ExceptionMatches(kind.as_ptr()) == 0 {
            return Raised;
        }
        ffi::PyErr_Clear();
        raise(kind, &format!("{name} must be {wanted}, not {}", display(value.as_ptr())))
    }
}

/// The id that a publisher chose.
fn identity(value: Ref) -> R<Ref> {
    let value = string(value, "message_id")?;
    if !value.truthy()? {
        return Err(raise(&globals().value_error, "message_id must not be empty"));
    }
    Ok(value)
}

pub(crate) fn string(value: Ref, name: &str) -> R<Ref> {
    // SAFETY: the object is live.
    if unsafe { ffi::PyUnicode_Check(value.as_ptr()) } == 0 {
        return Err(raise(&globals().type_error, &format!("{name} must be a str or None")));
    }
    Ok(value)
}

const NO_HEADERS: &str = "headers must map str to str";

/// A read-only copy of a mapping; None when it is empty.
pub(crate) fn frozen(mapping: &Ref) -> R<Option<Ref>> {
    // SAFETY: the dict is new and ours until the proxy hides it.
    unsafe {
        let copy = Ref::steal(ffi::PyDict_New())?;
        if ffi::PyDict_Update(copy.as_ptr(), mapping.as_ptr()) != 0 {
            if ffi::PyErr_ExceptionMatches(ffi::PyExc_AttributeError) == 0 {
                return Err(Raised);
            }
            ffi::PyErr_Clear();
            return Err(raise(&globals().type_error, NO_HEADERS));
        }
        if ffi::PyDict_Size(copy.as_ptr()) == 0 {
            return Ok(None);
        }
        let (mut position, mut name, mut value) = (0, ptr::null_mut(), ptr::null_mut());
        while ffi::PyDict_Next(copy.as_ptr(), &mut position, &mut name, &mut value) != 0 {
            if ffi::PyUnicode_Check(name) == 0 || ffi::PyUnicode_Check(value) == 0 {
                return Err(raise(&globals().type_error, NO_HEADERS));
            }
        }
        Ref::steal(ffi::PyDictProxy_New(copy.as_ptr())).map(Some)
    }
}

pub(crate) fn occurred() -> bool {
    // SAFETY: reads the error indicator.
    unsafe { !ffi::PyErr_Occurred().is_null() }
}

/// A priority; one that no rank can be is as far out as ranks go, and refused as such.
fn rank(object: Ref) -> R<i64> {
    let mut overflow = 0;
    // SAFETY: the object is live.
    let rank = unsafe { ffi::PyLong_AsLongLongAndOverflow(object.as_ptr(), &mut overflow) };
    match overflow {
        0 if rank == -1 && occurred() => Err(mistyped(&object, "priority", "an integer")),
        0 => Ok(rank),
        sign if sign > 0 => Ok(i64::MAX),
        _ => Ok(i64::MIN),
    }
}
