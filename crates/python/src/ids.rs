//! Id strings: formatted when somebody reads them, and rewritten in place when nobody kept the last one.

use pyo3::ffi;

use crate::obj::{GilCell, R, Raised, Ref};

const DIGITS: usize = 32;

struct Cached {
    text: Option<Ref>,
    prefix: u64,
    seq: u64,
}

/// The id last answered by an awaited publish.
static CACHE: GilCell<Cached> = GilCell::new(Cached { text: None, prefix: 0, seq: 0 });

/// A new string.
pub(crate) fn formatted(prefix: u64, seq: u64) -> R<Ref> {
    // SAFETY: a new ASCII string of 32 characters, all written before anybody sees it.
    unsafe {
        let text = Ref::steal(ffi::PyUnicode_New(DIGITS as isize, 127))?;
        let digits = data(&text);
        write_hex(digits, prefix);
        write_hex(digits.add(DIGITS / 2), seq);
        Ok(text)
    }
}

/// As [`formatted`]; most callers of `publish` drop the id at once, and then the same string serves the next.
#[inline]
pub(crate) fn recycled(prefix: u64, seq: u64) -> R<Ref> {
    // SAFETY: the borrow ends before any other code runs; see `unshared` for the rewriting.
    unsafe {
        let cache = CACHE.get();
        if let Some(text) = &cache.text
            && cache.prefix == prefix
            && unshared(text)
        {
            let digits = data(text);
            if cache.seq >> 8 == seq >> 8 {
                digits.add(DIGITS - 2).cast::<[u8; 2]>().write_unaligned(pair(seq as u8));
            } else {
                write_hex(digits.add(DIGITS / 2), seq);
            }
            cache.seq = seq;
            return Ok(text.clone());
        }
    }
    fresh(prefix, seq)
}

#[cold]
fn fresh(prefix: u64, seq: u64) -> R<Ref> {
    let text = formatted(prefix, seq)?;
    // SAFETY: the borrow ends with the statement; the old value, a str, is dropped after it.
    let old = unsafe { CACHE.get().text.replace(text.clone()) };
    // SAFETY: as above.
    unsafe {
        CACHE.get().prefix = prefix;
        CACHE.get().seq = seq;
    }
    drop(old);
    Ok(text)
}

/// Only the cache refers to the string, so that nobody can see it change; its hash is forgotten.
#[cfg(not(Py_3_14))]
#[inline]
unsafe fn unshared(text: &Ref) -> bool {
    // SAFETY: the object is a compact ASCII str that `formatted` made.
    unsafe {
        let object = text.as_ptr().cast::<ffi::PyASCIIObject>();
        // before 3.12 the table of interned strings does not count as a reference
        if text.refcount() != 1 || (*object).interned() != 0 {
            return false;
        }
        (*object).hash = -1;
        true
    }
}

/// The layout is private from 3.14 on.
#[cfg(Py_3_14)]
unsafe fn unshared(_: &Ref) -> bool {
    false
}

unsafe fn data(text: &Ref) -> *mut u8 {
    // SAFETY: compact ASCII strings keep their characters behind the header.
    unsafe { text.as_ptr().cast::<u8>().add(size_of::<ffi::PyASCIIObject>()) }
}

unsafe fn write_hex(to: *mut u8, value: u64) {
    for (index, byte) in value.to_be_bytes().into_iter().enumerate() {
        // SAFETY: the caller has room for 16 characters.
        unsafe { to.add(index * 2).cast::<[u8; 2]>().write_unaligned(pair(byte)) };
    }
}

#[inline]
fn pair(byte: u8) -> [u8; 2] {
    PAIRS[byte as usize]
}

static PAIRS: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};

/// 16 digits.
pub(crate) fn prefix_text(prefix: u64) -> R<Ref> {
    let text = format!("{prefix:016x}");
    // SAFETY: valid UTF-8.
    unsafe {
        Ref::steal(ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len() as isize))
    }
    .map_err(|_| Raised)
}
