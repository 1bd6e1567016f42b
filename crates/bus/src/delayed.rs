//! Messages that wait for their time.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A message, when it is due, and whether it keeps its key until then.
#[derive(Debug)]
pub(crate) struct Delay<T> {
    pub(crate) due_ns: u64,
    order: u64,
    pub(crate) rank: i64,
    pub(crate) holds_key: bool,
    pub(crate) item: T,
}

impl<T> Delay<T> {
    fn when(&self) -> (u64, u64) {
        (self.due_ns, self.order)
    }
}

impl<T> PartialEq for Delay<T> {
    fn eq(&self, other: &Self) -> bool {
        self.when() == other.when()
    }
}

impl<T> Eq for Delay<T> {}

impl<T> PartialOrd for Delay<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Delay<T> {
    /// The earliest is the greatest, as [`BinaryHeap`] wants it.
    fn cmp(&self, other: &Self) -> Ordering {
        other.when().cmp(&self.when())
    }
}

/// Ordered by due time; of equals, the first to come is the first to go.
#[derive(Debug)]
pub(crate) struct Delayed<T> {
    heap: BinaryHeap<Delay<T>>,
    entered: u64,
}

impl<T> Delayed<T> {
    pub(crate) const fn new() -> Self {
        Self { heap: BinaryHeap::new(), entered: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(crate) fn items(&self) -> impl Iterator<Item = &T> {
        self.heap.iter().map(|delay| &delay.item)
    }

    pub(crate) fn next_due(&self) -> Option<u64> {
        self.heap.peek().map(|delay| delay.due_ns)
    }

    /// Answers the due time if it is now the earliest.
    pub(crate) fn push(&mut self, due_ns: u64, rank: i64, item: T, holds_key: bool) -> Option<u64> {
        let earlier = self.next_due().is_none_or(|earliest| due_ns < earliest);
        self.entered += 1;
        self.heap.push(Delay { due_ns, order: self.entered, rank, holds_key, item });
        earlier.then_some(due_ns)
    }

    pub(crate) fn pop_due(&mut self, now_ns: u64) -> Option<Delay<T>> {
        self.next_due().filter(|&due_ns| due_ns <= now_ns)?;
        self.heap.pop()
    }

    /// Takes out everything, the earliest first.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Delay<T>> {
        std::iter::from_fn(|| self.heap.pop())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earliest_first_then_in_order_of_entry() {
        let mut delayed = Delayed::new();
        assert_eq!(delayed.push(20, 0, "b", false), Some(20));
        assert_eq!(delayed.push(20, 0, "c", false), None);
        assert_eq!(delayed.push(30, 0, "d", false), None);
        assert_eq!(delayed.push(10, 0, "a", true), Some(10));
        assert!(delayed.pop_due(9).is_none());
        let due: Vec<_> = std::iter::from_fn(|| delayed.pop_due(20)).map(|d| d.item).collect();
        assert_eq!(due, ["a", "b", "c"]);
        assert_eq!((delayed.len(), delayed.next_due()), (1, Some(30)));
    }
}
