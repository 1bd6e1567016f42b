//! A priority queue with exact order: lower rank first, first in first out inside a rank.

use std::collections::BTreeMap;

use crate::arena::{Arena, Handle, List};

const LEVELS: usize = 256;
const WORDS: usize = LEVELS / 64;

/// A strict priority FIFO whose operations take constant time for ranks 0 to 255.
///
/// A bitmap says which of those 256 levels hold something. Other ranks live in an ordered map beside it, which costs
/// nothing until one is used.
///
/// ```
/// let mut queue = neuralcore_bus::PriorityQueue::new();
/// queue.push_back(50, "later");
/// queue.push_back(0, "first");
/// queue.push_back(50, "last");
/// assert_eq!(queue.pop(), Some((0, "first")));
/// assert_eq!(queue.pop(), Some((50, "later")));
/// ```
#[derive(Debug)]
pub struct PriorityQueue<T> {
    occupied: [u64; WORDS],
    items: Arena<T>,
    others: BTreeMap<i64, List>,
    levels: [List; LEVELS],
}

impl<T> Default for PriorityQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> PriorityQueue<T> {
    /// An empty queue; allocates nothing.
    pub const fn new() -> Self {
        Self {
            occupied: [0; WORDS],
            items: Arena::new(),
            others: BTreeMap::new(),
            levels: [List::EMPTY; LEVELS],
        }
    }

    /// How many items it holds.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.items.len() == 0
    }

    /// Enters an item behind its equals.
    #[inline]
    pub fn push_back(&mut self, rank: i64, item: T) {
        self.insert(rank, |items, list| items.push_back(list, item));
    }

    /// Enters an item before its equals.
    #[inline]
    pub fn push_front(&mut self, rank: i64, item: T) {
        self.insert(rank, |items, list| items.push_front(list, item));
    }

    /// Takes the oldest item of the most urgent rank.
    #[inline]
    pub fn pop(&mut self) -> Option<(i64, T)> {
        let rank = self.peek_rank()?;
        let first = self.list(rank).first()?;
        Some((rank, self.remove(rank, first)))
    }

    /// Takes the newest item of the least urgent rank.
    pub fn pop_relaxed(&mut self) -> Option<(i64, T)> {
        let rank = self.relaxed_rank()?;
        let last = self.list(rank).last()?;
        Some((rank, self.remove(rank, last)))
    }

    /// Takes the oldest item of the least urgent rank: what makes room for a newcomer.
    pub fn evict(&mut self) -> Option<(i64, T)> {
        let rank = self.relaxed_rank()?;
        let first = self.list(rank).first()?;
        Some((rank, self.remove(rank, first)))
    }

    /// The most urgent rank.
    #[inline]
    pub fn peek_rank(&self) -> Option<i64> {
        if self.others.is_empty() {
            self.first_level()
        } else {
            self.first_of_all()
        }
    }

    /// The least urgent rank.
    pub fn relaxed_rank(&self) -> Option<i64> {
        match self.others.last_key_value() {
            Some((&rank, _)) if rank >= 0 => Some(rank),
            other => self.last_level().or(other.map(|(&rank, _)| rank)),
        }
    }

    /// What [`pop`](Self::pop) would take.
    #[inline]
    pub fn peek(&self) -> Option<(i64, &T)> {
        self.oldest(self.peek_rank()?)
    }

    /// What [`evict`](Self::evict) would take.
    pub fn peek_evict(&self) -> Option<(i64, &T)> {
        self.oldest(self.relaxed_rank()?)
    }

    /// How many items each rank holds, most urgent first; ranks without any are left out.
    pub fn depths(&self) -> Vec<(i64, usize)> {
        self.ranks()
            .map(|rank| (rank, self.list(rank).len()))
            .collect()
    }

    /// Takes everything out, most urgent first.
    pub fn drain(&mut self) -> Vec<(i64, T)> {
        let mut out = Vec::with_capacity(self.len());
        out.extend(std::iter::from_fn(|| self.pop()));
        out
    }

    /// Whether a rank holds nothing.
    pub(crate) fn is_empty_at(&self, rank: i64) -> bool {
        self.list(rank).is_empty()
    }

    /// Enters an item before the first of its rank that `follows` it, else behind all; answers where it is.
    pub(crate) fn push_sorted(
        &mut self,
        rank: i64,
        item: T,
        follows: impl Fn(&T, &T) -> bool,
    ) -> Handle {
        self.insert(rank, |items, list| {
            let behind_all = list
                .last()
                .is_none_or(|last| !follows(items.get(last), &item));
            if behind_all {
                return items.push_back(list, item);
            }
            let mut at = list.first().expect("the list has a last item");
            while !follows(items.get(at), &item) {
                at = items.next(at).expect("the last item follows");
            }
            items.insert_before(list, at, item)
        })
    }

    pub(crate) fn get(&self, handle: Handle) -> &T {
        self.items.get(handle)
    }

    pub(crate) fn get_mut(&mut self, handle: Handle) -> &mut T {
        self.items.get_mut(handle)
    }

    /// Takes out the item at `handle`, which is of this rank.
    #[inline]
    pub(crate) fn remove(&mut self, rank: i64, handle: Handle) -> T {
        let Some(level) = level(rank) else {
            return self.remove_other(rank, handle);
        };
        let list = &mut self.levels[level];
        let item = self.items.remove(list, handle);
        if list.is_empty() {
            self.occupied[level / 64] &= !(1 << (level % 64));
        }
        item
    }

    #[inline]
    fn insert<R>(&mut self, rank: i64, enter: impl FnOnce(&mut Arena<T>, &mut List) -> R) -> R {
        let Some(level) = level(rank) else {
            return enter(
                &mut self.items,
                self.others.entry(rank).or_insert(List::EMPTY),
            );
        };
        self.occupied[level / 64] |= 1 << (level % 64);
        enter(&mut self.items, &mut self.levels[level])
    }

    #[cold]
    fn remove_other(&mut self, rank: i64, handle: Handle) -> T {
        let list = self
            .others
            .get_mut(&rank)
            .expect("the handle is of this rank");
        let item = self.items.remove(list, handle);
        if list.is_empty() {
            self.others.remove(&rank);
        }
        item
    }

    #[inline]
    fn list(&self, rank: i64) -> List {
        match level(rank) {
            Some(level) => self.levels[level],
            None => self.others.get(&rank).copied().unwrap_or(List::EMPTY),
        }
    }

    #[inline]
    fn oldest(&self, rank: i64) -> Option<(i64, &T)> {
        self.list(rank)
            .first()
            .map(|first| (rank, self.items.get(first)))
    }

    #[inline]
    fn first_level(&self) -> Option<i64> {
        let word = self.occupied.iter().position(|&word| word != 0)?;
        Some((word * 64) as i64 + i64::from(self.occupied[word].trailing_zeros()))
    }

    fn last_level(&self) -> Option<i64> {
        let word = self.occupied.iter().rposition(|&word| word != 0)?;
        Some((word * 64) as i64 + i64::from(self.occupied[word].ilog2()))
    }

    #[cold]
    fn first_of_all(&self) -> Option<i64> {
        match self.others.first_key_value() {
            Some((&rank, _)) if rank < 0 => Some(rank),
            other => self.first_level().or(other.map(|(&rank, _)| rank)),
        }
    }

    fn ranks(&self) -> impl Iterator<Item = i64> {
        let levels = (0..LEVELS as i64).filter(|&rank| !self.is_empty_at(rank));
        let below = self.others.range(..0).map(|(&rank, _)| rank);
        let above = self.others.range(0..).map(|(&rank, _)| rank);
        below.chain(levels).chain(above)
    }
}

#[inline]
fn level(rank: i64) -> Option<usize> {
    usize::try_from(rank).ok().filter(|&level| level < LEVELS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(entries: &[(i64, &'static str)]) -> PriorityQueue<&'static str> {
        let mut queue = PriorityQueue::new();
        for &(rank, item) in entries {
            queue.push_back(rank, item);
        }
        queue
    }

    #[test]
    fn lower_ranks_first_and_fifo_inside_a_rank() {
        let mut queue = filled(&[(50, "a"), (0, "b"), (255, "c"), (50, "d"), (64, "e")]);
        assert_eq!(queue.peek_rank(), Some(0));
        assert_eq!(
            queue.drain(),
            [(0, "b"), (50, "a"), (50, "d"), (64, "e"), (255, "c")]
        );
        assert_eq!(queue.pop(), None);
        assert!(queue.is_empty());
    }

    #[test]
    fn any_rank_has_its_place() {
        let mut queue = filled(&[
            (300, "a"),
            (i64::MIN, "b"),
            (10, "c"),
            (-1, "d"),
            (i64::MAX, "e"),
        ]);
        assert_eq!(queue.relaxed_rank(), Some(i64::MAX));
        let order: Vec<_> = queue.drain().into_iter().map(|(_, item)| item).collect();
        assert_eq!(order, ["b", "d", "c", "a", "e"]);
        assert!(queue.others.is_empty());
        assert_eq!(queue.relaxed_rank(), None);
    }

    #[test]
    fn the_front_is_before_its_equals() {
        let mut queue = filled(&[(50, "a")]);
        queue.push_front(50, "b");
        queue.push_front(1000, "c");
        assert_eq!(queue.drain(), [(50, "b"), (50, "a"), (1000, "c")]);
    }

    #[test]
    fn relaxed_and_evicted_are_of_the_least_urgent_rank() {
        let entries = [(10, "x"), (75, "old"), (75, "middle"), (75, "new")];
        let mut queue = filled(&entries);
        assert_eq!(queue.peek_evict(), Some((75, &"old")));
        assert_eq!(queue.evict(), Some((75, "old")));
        assert_eq!(queue.pop_relaxed(), Some((75, "new")));
        assert_eq!(queue.pop_relaxed(), Some((75, "middle")));
        assert_eq!(queue.pop_relaxed(), Some((10, "x")));
        assert_eq!(queue.evict(), None);
    }

    #[test]
    fn relaxed_rank_below_the_bitmap() {
        assert_eq!(filled(&[(-5, "a"), (-9, "b")]).relaxed_rank(), Some(-5));
        assert_eq!(filled(&[(-5, "a"), (0, "b")]).relaxed_rank(), Some(0));
    }

    #[test]
    fn depths_are_by_rank_and_leave_empty_ones_out() {
        let mut queue = filled(&[(-1, "a"), (7, "b"), (7, "c"), (999, "d"), (8, "e")]);
        queue.remove(8, queue.list(8).first().unwrap());
        assert_eq!(queue.depths(), [(-1, 1), (7, 2), (999, 1)]);
    }

    #[test]
    fn sorted_entry_finds_its_place() {
        let mut queue = PriorityQueue::new();
        for item in [5, 9, 7, 1, 8] {
            queue.push_sorted(3, item, |other, item| other > item);
        }
        let order: Vec<_> = queue.drain().into_iter().map(|(_, item)| item).collect();
        assert_eq!(order, [1, 5, 7, 8, 9]);
    }
}
