//! Messages that wait for the key of another one.
//!
//! A message is parked once `take` would have reached it, so at its rank it is older than all that is still queued.
//! What is parked stays here until it is taken: when its key comes free, the key announces its most urgent message, and
//! `take` compares that with the head of the queue. So the order is exact, and each step costs the same however many
//! messages wait.
//!
//! Keys are known by a seeded 64-bit hash alone, so nothing is allocated for them. Two keys that share one are handled
//! one after the other, as if they were equal: slower, never wrong.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::hash_map::{HashMap, RandomState};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use crate::arena::Handle;
use crate::ranked::Ranked;

/// A place in the order of a mailbox: lower rank first, then lower position.
pub(crate) type Place = (i64, i64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyHash(u64);

impl std::hash::Hash for KeyHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// Passes a [`KeyHash`] through, which is a hash already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a key's hash is one u64");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Who has a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    Nobody,
    InFlight,
    /// A message that waits for its retry.
    Delayed,
    /// A message that is queued again after its retry, at this position.
    Queued(i64),
}

#[derive(Debug)]
pub(crate) struct Parked<T> {
    pub(crate) position: i64,
    key: KeyHash,
    /// The next one of its lane.
    next: Option<Handle>,
    pub(crate) item: T,
}

/// The parked messages of one key and one rank, oldest first.
#[derive(Debug)]
struct Lane {
    rank: i64,
    first: Handle,
    last: Handle,
    /// The place of `first` is in `ready`.
    announced: bool,
}

#[derive(Debug)]
struct Key {
    holder: Holder,
    /// Most urgent first; seldom more than one.
    lanes: Vec<Lane>,
}

/// The keys in use and the messages parked behind them.
#[derive(Debug)]
pub(crate) struct Keys<T> {
    seed: RandomState,
    keys: HashMap<KeyHash, Key, BuildHasherDefault<Identity>>,
    parked: Ranked<Parked<T>>,
    /// First messages of keys that nobody holds; some may be out of date.
    ready: BinaryHeap<Reverse<(Place, KeyHash)>>,
    spare: Vec<Vec<Lane>>,
}

impl<T> Keys<T> {
    pub(crate) fn new() -> Self {
        Self {
            seed: RandomState::new(),
            keys: HashMap::default(),
            parked: Ranked::new(),
            ready: BinaryHeap::new(),
            spare: Vec::new(),
        }
    }

    /// How many messages are parked.
    pub(crate) fn len(&self) -> usize {
        self.parked.len()
    }

    pub(crate) fn items(&self) -> impl Iterator<Item = &T> {
        self.parked.items().map(|parked| &parked.item)
    }

    /// Whether no key is held or waited for.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(crate) fn hash(&self, key: &str) -> KeyHash {
        KeyHash(self.seed.hash_one(key))
    }

    /// Whether a message with this key must wait, unless it is the holder at this position.
    pub(crate) fn blocks(&self, key: KeyHash, position: i64) -> bool {
        match self.keys.get(&key).map(|key| key.holder) {
            None | Some(Holder::Nobody) => false,
            Some(Holder::Queued(holder)) => holder != position,
            Some(Holder::InFlight | Holder::Delayed) => true,
        }
    }

    pub(crate) fn hold(&mut self, key: KeyHash, holder: Holder) {
        let spare = &mut self.spare;
        let entry = self.keys.entry(key);
        let new = || Key { holder, lanes: spare.pop().unwrap_or_default() };
        entry.and_modify(|key| key.holder = holder).or_insert_with(new);
    }

    /// Nobody holds the key any more: its most urgent parked message, or any other, may be next.
    pub(crate) fn free(&mut self, hash: KeyHash) {
        if let Some(key) = self.keys.get_mut(&hash) {
            key.holder = Holder::Nobody;
            self.announce(hash);
        }
    }

    /// The queued message at this position is gone; was it the holder of its key, the key is free.
    pub(crate) fn removed(&mut self, hash: KeyHash, position: i64) {
        let holder = self.keys.get(&hash).map(|key| key.holder);
        if holder == Some(Holder::Queued(position)) {
            self.free(hash);
        }
    }

    /// Parks a message whose key somebody holds.
    pub(crate) fn park(&mut self, hash: KeyHash, (rank, position): Place, item: T) {
        let key = self.keys.get_mut(&hash).expect("only a held key blocks");
        let parked = Parked { position, key: hash, next: None, item };
        let handle = self.parked.insert(rank, parked, |other, this| other.position > this.position);
        match key.lanes.binary_search_by_key(&rank, |lane| lane.rank) {
            Err(at) => {
                let lane = Lane { rank, first: handle, last: handle, announced: false };
                key.lanes.insert(at, lane);
            }
            Ok(at) => link(&mut self.parked, &mut key.lanes[at], handle),
        }
    }

    /// The place of the first parked message whose key is free.
    pub(crate) fn peek(&mut self) -> Option<Place> {
        while let Some(&Reverse((place, hash))) = self.ready.peek() {
            if self.is_next(hash, place) {
                return Some(place);
            }
            self.ready.pop();
        }
        None
    }

    /// Takes what `peek` saw; its key is in flight with it.
    pub(crate) fn take(&mut self) -> Option<(i64, T)> {
        let (rank, _) = self.peek()?;
        let Reverse((_, hash)) = self.ready.pop()?;
        let item = self.remove_first(hash, rank);
        self.hold(hash, Holder::InFlight);
        Some((rank, item))
    }

    /// The place of the oldest parked message of the least urgent rank.
    pub(crate) fn peek_evict(&self) -> Option<Place> {
        let (rank, first) = self.parked.first_of_last()?;
        Some((rank, self.parked.get(first).position))
    }

    /// Takes what `peek_evict` saw.
    pub(crate) fn evict(&mut self) -> Option<(i64, T)> {
        let (rank, first) = self.parked.first_of_last()?;
        let hash = self.parked.get(first).key;
        let item = self.remove_first(hash, rank);
        self.announce(hash);
        Some((rank, item))
    }

    /// Hands over all that is parked; only keys in flight stay held.
    pub(crate) fn clear(&mut self) -> Ranked<Parked<T>> {
        self.ready.clear();
        self.keys.retain(|_, key| {
            key.lanes.clear();
            key.holder == Holder::InFlight
        });
        std::mem::replace(&mut self.parked, Ranked::new())
    }

    /// Makes a free key's first message known, and forgets a free key that has none.
    fn announce(&mut self, hash: KeyHash) {
        let Some(key) = self.keys.get_mut(&hash) else {
            return;
        };
        if key.holder != Holder::Nobody {
            return;
        }
        match key.lanes.first_mut() {
            None => {
                let key = self.keys.remove(&hash).expect("it was just there");
                self.spare.push(key.lanes);
            }
            Some(lane) if lane.announced => {}
            Some(lane) => {
                lane.announced = true;
                let place = (lane.rank, self.parked.get(lane.first).position);
                self.ready.push(Reverse((place, hash)));
            }
        }
    }

    /// Whether an announced place is still the first of its lane and its key free.
    fn is_next(&mut self, hash: KeyHash, (rank, position): Place) -> bool {
        let Some(key) = self.keys.get_mut(&hash) else {
            return false;
        };
        let Ok(at) = key.lanes.binary_search_by_key(&rank, |lane| lane.rank) else {
            return false;
        };
        let lane = &mut key.lanes[at];
        if self.parked.get(lane.first).position != position {
            return false;
        }
        lane.announced = key.holder == Holder::Nobody;
        lane.announced
    }

    /// Takes out the first message of a lane.
    fn remove_first(&mut self, hash: KeyHash, rank: i64) -> T {
        let key = self.keys.get_mut(&hash).expect("a parked message's key is known");
        let at = key.lanes.binary_search_by_key(&rank, |lane| lane.rank);
        let at = at.expect("a parked message is in a lane of its rank");
        let lane = &mut key.lanes[at];
        let parked = self.parked.remove(rank, lane.first);
        match parked.next {
            Some(next) => {
                lane.first = next;
                lane.announced = false;
            }
            None => {
                key.lanes.remove(at);
            }
        }
        parked.item
    }
}

/// Enters a parked message into its lane by its position: behind all, unless it was given back before.
fn link<T>(parked: &mut Ranked<Parked<T>>, lane: &mut Lane, handle: Handle) {
    let position = parked.get(handle).position;
    if parked.get(lane.last).position < position {
        parked.get_mut(lane.last).next = Some(handle);
        lane.last = handle;
        return;
    }
    let (mut before, mut at) = (None, lane.first);
    while parked.get(at).position < position {
        before = Some(at);
        at = parked.get(at).next.expect("the last one's position is higher");
    }
    parked.get_mut(handle).next = Some(at);
    match before {
        Some(before) => parked.get_mut(before).next = Some(handle),
        None => {
            lane.first = handle;
            lane.announced = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parked(places: &[(&str, i64, i64)]) -> Keys<i64> {
        let mut keys = Keys::new();
        for &(key, rank, position) in places {
            let key = keys.hash(key);
            keys.hold(key, Holder::InFlight);
            keys.park(key, (rank, position), position);
        }
        keys
    }

    fn free(keys: &mut Keys<i64>, key: &str) {
        keys.free(keys.hash(key));
    }

    #[test]
    fn what_is_parked_waits_for_its_key() {
        let mut keys = parked(&[("a", 5, 1), ("b", 5, 2), ("a", 5, 3)]);
        assert_eq!(keys.peek(), None);
        free(&mut keys, "b");
        assert_eq!(keys.take(), Some((5, 2)));
        assert_eq!(keys.take(), None, "the key is in flight with it");
        free(&mut keys, "a");
        assert_eq!(keys.peek(), Some((5, 1)));
        assert_eq!(keys.take(), Some((5, 1)));
        assert_eq!(keys.len(), 1);
    }

    #[test]
    fn the_first_of_all_free_keys_is_next() {
        let mut keys = parked(&[("a", 9, 1), ("b", 5, 2), ("c", 5, 3), ("a", 1, 4)]);
        ["c", "b", "a"].iter().for_each(|key| free(&mut keys, key));
        let order: Vec<_> = std::iter::from_fn(|| keys.take()).collect();
        assert_eq!(order, [(1, 4), (5, 2), (5, 3)]);
    }

    #[test]
    fn a_key_that_is_taken_elsewhere_is_no_longer_next() {
        let mut keys = parked(&[("a", 5, 1)]);
        free(&mut keys, "a");
        keys.hold(keys.hash("a"), Holder::InFlight);
        assert_eq!(keys.peek(), None);
        free(&mut keys, "a");
        assert_eq!(keys.take(), Some((5, 1)));
    }

    #[test]
    fn the_holder_itself_may_pass() {
        let mut keys = Keys::<()>::new();
        let key = keys.hash("a");
        assert!(!keys.blocks(key, 1));
        keys.hold(key, Holder::Delayed);
        assert!(keys.blocks(key, 1));
        keys.hold(key, Holder::Queued(1));
        assert!(!keys.blocks(key, 1) && keys.blocks(key, 2));
        keys.removed(key, 2);
        assert!(keys.blocks(key, 2));
        keys.removed(key, 1);
        assert!(!keys.blocks(key, 2));
    }

    #[test]
    fn the_oldest_of_the_least_urgent_rank_is_evicted() {
        let mut keys = parked(&[("a", 9, 2), ("b", 9, 1), ("b", 5, 0), ("a", 9, 3)]);
        free(&mut keys, "a");
        let evicted = |keys: &mut Keys<i64>| {
            let place = keys.peek_evict();
            assert_eq!(place, keys.evict());
            place.map(|(_, position)| position)
        };
        assert_eq!(evicted(&mut keys), Some(1));
        assert_eq!(evicted(&mut keys), Some(2));
        assert_eq!(keys.take(), Some((9, 3)), "the next of a free key is announced");
        assert_eq!(evicted(&mut keys), Some(0));
        assert_eq!(evicted(&mut keys), None);
    }

    #[test]
    fn one_that_was_given_back_is_before_the_others() {
        let mut keys = parked(&[("a", 5, 1), ("a", 5, 2), ("a", 5, -1), ("a", 5, -2)]);
        let mut order = Vec::new();
        free(&mut keys, "a");
        while let Some((_, position)) = keys.take() {
            order.push(position);
            free(&mut keys, "a");
        }
        assert_eq!(order, [-2, -1, 1, 2]);
        assert!(keys.keys.is_empty(), "a free key that nobody waits for is forgotten");
    }
}
