//! Message ids: a random prefix per source and a counter.

use std::fmt;
use std::str::FromStr;

use crate::sync::{AtomicU64, Ordering};

/// 128 bits, written as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// The same for all ids of one source.
    pub prefix: u64,
    /// Counts up.
    pub count: u64,
}

/// The digits of an [`Id`].
#[derive(Clone, Copy)]
pub struct Hex([u8; 32]);

impl Id {
    /// Writes it out without allocating.
    pub fn hex(self) -> Hex {
        let mut digits = [0; 32];
        write_hex(self.prefix, &mut digits[..16]);
        write_hex(self.count, &mut digits[16..]);
        Hex(digits)
    }
}

fn write_hex(mut number: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

impl Hex {
    /// The digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }
}

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.hex().as_str())
    }
}

/// The text is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnId;

impl fmt::Display for NotAnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id is 32 hexadecimal digits in lower case")
    }
}

impl std::error::Error for NotAnId {}

impl FromStr for Id {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let lower = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(lower) {
            return Err(NotAnId);
        }
        let number = |digits| u64::from_str_radix(digits, 16).map_err(|_| NotAnId);
        Ok(Self { prefix: number(&text[..16])?, count: number(&text[16..])? })
    }
}

/// Makes ids that no other source makes: the prefix is random.
#[derive(Debug)]
pub struct IdSource {
    prefix: AtomicU64,
    count: AtomicU64,
}

impl Default for IdSource {
    fn default() -> Self {
        Self::new()
    }
}

impl IdSource {
    /// A source with a prefix of its own.
    ///
    /// # Panics
    /// If the operating system gives no random numbers.
    pub fn new() -> Self {
        Self { prefix: AtomicU64::new(random()), count: AtomicU64::new(0) }
    }

    /// The next id; the first counts 1.
    #[inline]
    pub fn next(&self) -> Id {
        self.block(1)
    }

    /// The first of so many ids in a row; none of them need be used.
    #[inline]
    pub fn block(&self, ids: u64) -> Id {
        let count = self.count.fetch_add(ids, Ordering::Relaxed) + 1;
        Id { prefix: self.prefix.load(Ordering::Relaxed), count }
    }

    /// What all its ids begin with.
    pub fn prefix(&self) -> u64 {
        self.prefix.load(Ordering::Relaxed)
    }

    /// Takes a new prefix, as a forked process must. It counts on: who kept no more than the count of an id meets no
    /// other with the same.
    pub fn reseed(&self) {
        self.prefix.store(random(), Ordering::Relaxed);
    }
}

fn random() -> u64 {
    getrandom::u64().expect("the operating system gives random numbers")
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn ids_count_up_behind_one_prefix() {
        let source = IdSource::new();
        let (first, second) = (source.next(), source.next());
        assert_eq!((first.prefix, first.count), (source.prefix(), 1));
        assert!(first < second);
        assert!(first.hex().as_str() < second.hex().as_str());
        assert_eq!((source.block(5).count, source.next().count), (3, 8));
    }

    #[test]
    fn sources_differ_and_so_does_a_reseeded_one() {
        let (a, b) = (IdSource::new(), IdSource::new());
        assert_ne!(a.prefix(), b.prefix());
        let before = a.next();
        a.reseed();
        assert_eq!(a.next().count, before.count + 1);
        assert_ne!(a.prefix(), before.prefix);
    }

    #[test]
    fn digits_are_padded_and_read_back() {
        let id = Id { prefix: 0xab, count: u64::MAX };
        assert_eq!(id.to_string(), "00000000000000abffffffffffffffff");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn only_ids_are_read() {
        let long = "0".repeat(33);
        let euro = format!("{}\u{20ac}", "0".repeat(29));
        for text in ["", "0", "zz", &long, &"A".repeat(32), &"+".repeat(32), &euro] {
            assert_eq!(text.parse::<Id>(), Err(NotAnId), "{text}");
        }
    }
}
