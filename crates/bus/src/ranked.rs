//! Items in order of rank and position, each of which can be taken out wherever it is.

use std::collections::BTreeMap;

use crate::arena::{Arena, Handle, List};

/// So many ranks stay known while they hold nothing, so that coming and going allocates nothing.
const KEPT_RANKS: usize = 256;

/// One list per rank. Unlike [`PriorityQueue`](crate::PriorityQueue) it can be entered and left in the middle.
#[derive(Debug)]
pub(crate) struct Ranked<T> {
    items: Arena<T>,
    ranks: BTreeMap<i64, List>,
}

impl<T> Ranked<T> {
    pub(crate) const fn new() -> Self {
        Self { items: Arena::new(), ranks: BTreeMap::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn items(&self) -> impl Iterator<Item = &T> {
        self.items.items()
    }

    pub(crate) fn get(&self, handle: Handle) -> &T {
        self.items.get(handle)
    }

    pub(crate) fn get_mut(&mut self, handle: Handle) -> &mut T {
        self.items.get_mut(handle)
    }

    /// Enters an item before those of its rank that follow it. Quick at both ends: it looks from the front, and only
    /// if the last item follows.
    pub(crate) fn insert(
        &mut self,
        rank: i64,
        item: T,
        follows: impl Fn(&T, &T) -> bool,
    ) -> Handle {
        let Self { items, ranks } = self;
        let list = ranks.entry(rank).or_insert(List::EMPTY);
        if list.last().is_none_or(|last| !follows(items.get(last), &item)) {
            return items.push_back(list, item);
        }
        let mut at = list.first().expect("the list has a last item");
        while !follows(items.get(at), &item) {
            at = items.next(at).expect("the last item follows");
        }
        items.insert_before(list, at, item)
    }

    /// Takes out the item at `handle`, which is of this rank.
    pub(crate) fn remove(&mut self, rank: i64, handle: Handle) -> T {
        let list = self.ranks.get_mut(&rank).expect("the item is of this rank");
        let item = self.items.remove(list, handle);
        if list.is_empty() && self.ranks.len() > KEPT_RANKS {
            self.ranks.remove(&rank);
        }
        item
    }

    /// The first item of the last rank.
    pub(crate) fn first_of_last(&self) -> Option<(i64, Handle)> {
        let firsts = self.ranks.iter().rev();
        firsts.filter_map(|(&rank, list)| Some((rank, list.first()?))).next()
    }

    /// Takes everything out in order.
    pub(crate) fn drain(&mut self) -> Vec<(i64, T)> {
        let mut out = Vec::with_capacity(self.len());
        for (rank, mut list) in std::mem::take(&mut self.ranks) {
            while let Some(first) = list.first() {
                out.push((rank, self.items.remove(&mut list, first)));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranked(items: &[(i64, i32)]) -> (Ranked<i32>, Vec<Handle>) {
        let mut ranked = Ranked::new();
        let insert = |&(rank, item)| ranked.insert(rank, item, |other, item| other > item);
        let handles = items.iter().map(insert).collect();
        (ranked, handles)
    }

    #[test]
    fn an_item_finds_its_place() {
        let (mut ranked, _) = ranked(&[(3, 5), (3, 9), (3, 7), (-1, 4), (3, 1), (3, 8)]);
        assert_eq!(ranked.len(), 6);
        assert_eq!(ranked.drain(), [(-1, 4), (3, 1), (3, 5), (3, 7), (3, 8), (3, 9)]);
        assert_eq!(ranked.len(), 0);
    }

    #[test]
    fn an_item_can_be_taken_out_of_the_middle() {
        let (mut ranked, handles) = ranked(&[(3, 1), (3, 2), (7, 3), (3, 4)]);
        assert_eq!(ranked.remove(3, handles[1]), 2);
        assert_eq!(ranked.first_of_last(), Some((7, handles[2])));
        assert_eq!(ranked.remove(7, handles[2]), 3);
        assert_eq!(ranked.first_of_last(), Some((3, handles[0])));
        assert_eq!(ranked.drain(), [(3, 1), (3, 4)]);
        assert_eq!(ranked.first_of_last(), None);
    }

    #[test]
    fn ranks_without_items_are_not_kept_for_ever() {
        let mut ranked = Ranked::new();
        for rank in 0..10_000 {
            let handle = ranked.insert(rank, (), |_, _| false);
            ranked.remove(rank, handle);
        }
        assert!(ranked.ranks.len() <= KEPT_RANKS + 1);
    }
}
