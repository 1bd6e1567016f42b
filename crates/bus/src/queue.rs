//! A priority queue with exact order: lower rank first, first in first out inside a rank.

use std::collections::{BTreeMap, VecDeque};

const LEVELS: usize = 256;
const WORDS: usize = LEVELS / 64;

/// A rank whose backlog was larger than this gives its memory back when it is empty.
const KEPT_PLACES: usize = 1024;

/// Takes from one end of a ring.
type End<T> = fn(&mut VecDeque<T>) -> Option<T>;

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
    /// As many as the highest level used so far needs.
    levels: Vec<VecDeque<T>>,
    /// Of these ranks, none is empty.
    others: BTreeMap<i64, VecDeque<T>>,
}

impl<T> Default for PriorityQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> PriorityQueue<T> {
    /// An empty queue; allocates nothing.
    pub const fn new() -> Self {
        Self { occupied: [0; WORDS], levels: Vec::new(), others: BTreeMap::new() }
    }

    /// How many items it holds, counted by rank.
    pub fn len(&self) -> usize {
        self.ranks().filter_map(|rank| self.ring(rank)).map(VecDeque::len).sum()
    }

    /// Whether it holds nothing.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.occupied == [0; WORDS] && self.others.is_empty()
    }

    /// Enters an item behind its equals.
    #[inline]
    pub fn push_back(&mut self, rank: i64, item: T) {
        self.ring_to_fill(rank).push_back(item);
    }

    /// Enters items behind their equals.
    #[inline]
    pub fn extend(&mut self, rank: i64, items: impl Iterator<Item = T>) {
        let Some(level) = level(rank) else {
            return items.for_each(|item| self.push_back(rank, item));
        };
        if level >= self.levels.len() {
            self.grow(level);
        }
        let ring = &mut self.levels[level];
        ring.extend(items);
        if !ring.is_empty() {
            self.occupied[level / 64] |= 1 << (level % 64);
        }
    }

    /// Enters an item before its equals.
    #[inline]
    pub fn push_front(&mut self, rank: i64, item: T) {
        self.ring_to_fill(rank).push_front(item);
    }

    /// Takes the oldest item of the most urgent rank.
    #[inline]
    pub fn pop(&mut self) -> Option<(i64, T)> {
        if !self.others.is_empty() {
            return self.take(self.first_of_all()?, VecDeque::pop_front);
        }
        let level = self.first_level()?;
        Some((level as i64, self.take_level(level, VecDeque::pop_front)?))
    }

    /// Takes up to `limit` of the oldest items of the most urgent rank and hands them to `each`, up to the first that is
    /// not `wanted`. Answers how many.
    pub(crate) fn pop_while(
        &mut self,
        limit: usize,
        wanted: impl Fn(&T) -> bool,
        mut each: impl FnMut(i64, T),
    ) -> usize {
        if !self.others.is_empty() {
            return 0;
        }
        let Some(level) = self.first_level() else { return 0 };
        let ring = &mut self.levels[level];
        let limit = limit.min(ring.len());
        let count = ring.iter().take(limit).position(|item| !wanted(item)).unwrap_or(limit);
        ring.drain(..count).for_each(|item| each(level as i64, item));
        if ring.is_empty() {
            self.occupied[level / 64] &= !(1 << (level % 64));
            rewind(ring);
        }
        count
    }

    /// Takes the newest item of the least urgent rank.
    pub fn pop_relaxed(&mut self) -> Option<(i64, T)> {
        self.take(self.relaxed_rank()?, VecDeque::pop_back)
    }

    /// Takes the oldest item of the least urgent rank: what makes room for a newcomer.
    pub fn evict(&mut self) -> Option<(i64, T)> {
        self.take(self.relaxed_rank()?, VecDeque::pop_front)
    }

    /// The most urgent rank.
    #[inline]
    pub fn peek_rank(&self) -> Option<i64> {
        if !self.others.is_empty() {
            return self.first_of_all();
        }
        self.first_level().map(|level| level as i64)
    }

    /// The least urgent rank.
    pub fn relaxed_rank(&self) -> Option<i64> {
        let last = self.others.keys().next_back().copied();
        let level = self.last_level().map(|level| level as i64);
        last.max(level)
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

    /// Whether a rank holds nothing.
    pub fn is_empty_at(&self, rank: i64) -> bool {
        self.ring(rank).is_none_or(VecDeque::is_empty)
    }

    /// How many items each rank holds, most urgent first; ranks without any are left out.
    pub fn depths(&self) -> Vec<(i64, usize)> {
        self.ranks().map(|rank| (rank, self.ring(rank).map_or(0, VecDeque::len))).collect()
    }

    /// Everything it holds, in no order.
    pub(crate) fn items(&self) -> impl Iterator<Item = &T> {
        self.levels.iter().chain(self.others.values()).flatten()
    }

    /// Takes everything out, most urgent first.
    pub fn drain(&mut self) -> Vec<(i64, T)> {
        let mut out = Vec::with_capacity(self.len());
        out.extend(std::iter::from_fn(|| self.pop()));
        out
    }

    #[inline]
    fn ring_to_fill(&mut self, rank: i64) -> &mut VecDeque<T> {
        let Some(level) = level(rank) else {
            return self.others.entry(rank).or_default();
        };
        self.occupied[level / 64] |= 1 << (level % 64);
        if level >= self.levels.len() {
            self.grow(level);
        }
        &mut self.levels[level]
    }

    #[cold]
    fn grow(&mut self, level: usize) {
        self.levels.resize_with(level + 1, VecDeque::new);
    }

    fn take(&mut self, rank: i64, end: End<T>) -> Option<(i64, T)> {
        let item = match level(rank) {
            Some(level) => self.take_level(level, end),
            None => self.take_other(rank, end),
        };
        Some((rank, item?))
    }

    #[inline]
    fn take_level(&mut self, level: usize, end: End<T>) -> Option<T> {
        let ring = self.levels.get_mut(level)?;
        let item = end(ring);
        if ring.is_empty() {
            self.occupied[level / 64] &= !(1 << (level % 64));
            rewind(ring);
        }
        item
    }

    #[cold]
    fn take_other(&mut self, rank: i64, end: End<T>) -> Option<T> {
        let ring = self.others.get_mut(&rank)?;
        let item = end(ring);
        if ring.is_empty() {
            self.others.remove(&rank);
        }
        item
    }

    #[inline]
    fn ring(&self, rank: i64) -> Option<&VecDeque<T>> {
        match level(rank) {
            Some(level) => self.levels.get(level),
            None => self.others.get(&rank),
        }
    }

    #[inline]
    fn oldest(&self, rank: i64) -> Option<(i64, &T)> {
        Some((rank, self.ring(rank)?.front()?))
    }

    #[inline]
    fn first_level(&self) -> Option<usize> {
        let word = self.occupied.iter().position(|&word| word != 0)?;
        Some(word * 64 + self.occupied[word].trailing_zeros() as usize)
    }

    fn last_level(&self) -> Option<usize> {
        let word = self.occupied.iter().rposition(|&word| word != 0)?;
        Some(word * 64 + self.occupied[word].ilog2() as usize)
    }

    #[cold]
    fn first_of_all(&self) -> Option<i64> {
        let first = self.others.keys().next().copied();
        let level = self.first_level().map(|level| level as i64);
        first.into_iter().chain(level).min()
    }

    fn ranks(&self) -> impl Iterator<Item = i64> {
        let below = self.others.range(..0).map(|(&rank, _)| rank);
        let levels = (0..WORDS).flat_map(|word| {
            bits(self.occupied[word]).map(move |bit| (word * 64) as i64 + i64::from(bit))
        });
        let above = self.others.range(0..).map(|(&rank, _)| rank);
        below.chain(levels).chain(above)
    }
}

/// The numbers of the bits that are set, lowest first.
fn bits(word: u64) -> impl Iterator<Item = u32> {
    let rest = std::iter::successors(Some(word), |&word| Some(word & word.wrapping_sub(1)));
    rest.take_while(|&word| word != 0).map(u64::trailing_zeros)
}

/// Lets an empty ring start over, so that a shallow queue stays in the same cache lines whatever its depth once was.
#[inline]
fn rewind<T>(ring: &mut VecDeque<T>) {
    if ring.capacity() > KEPT_PLACES {
        *ring = VecDeque::new();
    } else {
        ring.clear();
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
        assert_eq!(queue.drain(), [(0, "b"), (50, "a"), (50, "d"), (64, "e"), (255, "c")]);
        assert_eq!(queue.pop(), None);
        assert!(queue.is_empty());
    }

    #[test]
    fn any_rank_has_its_place() {
        let mut queue =
            filled(&[(300, "a"), (i64::MIN, "b"), (10, "c"), (-1, "d"), (i64::MAX, "e")]);
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
        queue.take(8, VecDeque::pop_front);
        assert_eq!(queue.depths(), [(-1, 1), (7, 2), (999, 1)]);
    }

    #[test]
    fn a_burst_gives_its_memory_back() {
        let mut queue = PriorityQueue::new();
        for item in 0..10_000 {
            queue.push_back(50, item);
        }
        assert_eq!(queue.len(), 10_000);
        queue.drain();
        assert_eq!(queue.levels[50].capacity(), 0);
    }

    #[test]
    fn an_empty_rank_starts_over_in_the_same_place() {
        let mut queue = PriorityQueue::new();
        for item in 0..100 {
            queue.push_back(50, item);
        }
        queue.drain();
        let place = |queue: &PriorityQueue<i32>| std::ptr::from_ref(&queue.levels[50][0]);
        queue.push_back(50, 1);
        let first = place(&queue);
        queue.pop();
        queue.push_back(50, 2);
        assert_eq!(place(&queue), first);
    }
}
