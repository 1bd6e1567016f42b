//! What was seen lately.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Remembers keys for a span of time, and of those the last so many.
///
/// ```
/// let mut window = neuralcore_bus::DedupWindow::new(1_000, 100);
/// assert!(window.insert("a", 0));
/// assert!(!window.insert("a", 999));
/// assert!(window.insert("a", 1_000));
/// ```
#[derive(Debug)]
pub struct DedupWindow<K> {
    span_ns: u64,
    limit: usize,
    entered: u64,
    seen: HashMap<K, u64>,
    /// In order of entry; what was forgotten or seen anew since is skipped.
    order: VecDeque<(u64, u64, K)>,
}

impl<K: Hash + Eq + Clone> DedupWindow<K> {
    /// A window of `span_ns` and at most `limit` keys.
    pub fn new(span_ns: u64, limit: usize) -> Self {
        Self { span_ns, limit, entered: 0, seen: HashMap::new(), order: VecDeque::new() }
    }

    /// Remembers a key; false if it is remembered already, which does not make it stay longer.
    pub fn insert(&mut self, key: K, now_ns: u64) -> bool {
        self.expire(now_ns);
        if self.seen.contains_key(&key) {
            return false;
        }
        self.entered += 1;
        self.seen.insert(key.clone(), self.entered);
        self.order.push_back((now_ns, self.entered, key));
        while self.seen.len() > self.limit {
            self.forget_oldest();
        }
        if self.order.len() > 2 * self.limit {
            let seen = &self.seen;
            self.order.retain(|(_, entered, key)| seen.get(key) == Some(entered));
        }
        true
    }

    /// Whether a key is remembered.
    pub fn contains(&mut self, key: &K, now_ns: u64) -> bool {
        self.expire(now_ns);
        self.seen.contains_key(key)
    }

    /// Forgets a key, as if it had not been seen.
    pub fn forget(&mut self, key: &K) -> bool {
        self.seen.remove(key).is_some()
    }

    /// How many keys are remembered, counting those whose time is over since the last call.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    fn expire(&mut self, now_ns: u64) {
        while let Some(&(seen_ns, _, _)) = self.order.front() {
            if now_ns.saturating_sub(seen_ns) < self.span_ns {
                return;
            }
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, entered, key)) = self.order.pop_front()
            && self.seen.get(&key) == Some(&entered)
        {
            self.seen.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_remembered_from_its_first_sight_for_the_span() {
        let mut window = DedupWindow::new(10, 5);
        assert!(window.insert(1, 0));
        assert!(!window.insert(1, 9));
        assert!(window.contains(&1, 9));
        assert!(!window.contains(&1, 10));
        assert!(window.insert(1, 10));
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut window = DedupWindow::new(100, 2);
        for key in [1, 2, 3] {
            assert!(window.insert(key, 0));
        }
        assert_eq!(window.len(), 2);
        assert!(!window.contains(&1, 0));
        assert!(window.contains(&2, 0) && window.contains(&3, 0));
    }

    #[test]
    fn a_key_forgotten_and_seen_anew_keeps_its_new_time() {
        let mut window = DedupWindow::new(10, 5);
        window.insert(1, 0);
        assert!(window.forget(&1));
        assert!(!window.forget(&1));
        assert!(window.insert(1, 5));
        assert!(window.contains(&1, 14));
        assert!(!window.contains(&1, 15));
    }

    #[test]
    fn what_was_forgotten_takes_no_memory_and_no_place() {
        let mut window = DedupWindow::new(10, 3);
        window.insert(0, 0);
        for key in 1..1000 {
            window.insert(key, 0);
            window.forget(&key);
        }
        assert!(window.contains(&0, 0));
        assert!(window.order.len() <= 6);
    }

    #[test]
    fn a_window_of_nothing_remembers_nothing() {
        let mut window = DedupWindow::new(10, 0);
        assert!(window.insert(1, 0) && window.insert(1, 0));
        assert!(window.is_empty());
    }
}
