//! Doubly linked lists of items that share one block of memory: a freed place is used again, so nothing is allocated
//! per item.

const NONE: u32 = u32::MAX;

/// A backlog above this many places gives its memory back once all lists are empty.
const KEPT_PLACES: usize = 4096;

/// Where an item sits in its [`Arena`], until it is taken out.
pub(crate) type Handle = u32;

#[derive(Debug)]
struct Node<T> {
    prev: Handle,
    next: Handle,
    item: Option<T>,
}

/// The two ends of a list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    head: Handle,
    tail: Handle,
}

impl List {
    pub(crate) const EMPTY: Self = Self { head: NONE, tail: NONE };

    pub(crate) fn is_empty(self) -> bool {
        self.head == NONE
    }

    pub(crate) fn first(self) -> Option<Handle> {
        (self.head != NONE).then_some(self.head)
    }

    pub(crate) fn last(self) -> Option<Handle> {
        (self.tail != NONE).then_some(self.tail)
    }
}

#[derive(Debug)]
pub(crate) struct Arena<T> {
    nodes: Vec<Node<T>>,
    free: Handle,
    len: usize,
}

impl<T> Arena<T> {
    pub(crate) const fn new() -> Self {
        Self { nodes: Vec::new(), free: NONE, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn items(&self) -> impl Iterator<Item = &T> {
        self.nodes.iter().filter_map(|node| node.item.as_ref())
    }

    pub(crate) fn get(&self, handle: Handle) -> &T {
        self.nodes[handle as usize].item.as_ref().expect("the handle is of an item in a list")
    }

    pub(crate) fn get_mut(&mut self, handle: Handle) -> &mut T {
        self.nodes[handle as usize].item.as_mut().expect("the handle is of an item in a list")
    }

    pub(crate) fn next(&self, handle: Handle) -> Option<Handle> {
        let next = self.nodes[handle as usize].next;
        (next != NONE).then_some(next)
    }

    pub(crate) fn push_back(&mut self, list: &mut List, item: T) -> Handle {
        let handle = self.place(list.tail, NONE, item);
        match list.tail {
            NONE => list.head = handle,
            tail => self.nodes[tail as usize].next = handle,
        }
        list.tail = handle;
        handle
    }

    pub(crate) fn push_front(&mut self, list: &mut List, item: T) -> Handle {
        let handle = self.place(NONE, list.head, item);
        match list.head {
            NONE => list.tail = handle,
            head => self.nodes[head as usize].prev = handle,
        }
        list.head = handle;
        handle
    }

    /// Enters `item` before the one at `at`, which is in `list`.
    pub(crate) fn insert_before(&mut self, list: &mut List, at: Handle, item: T) -> Handle {
        let prev = self.nodes[at as usize].prev;
        if prev == NONE {
            return self.push_front(list, item);
        }
        let handle = self.place(prev, at, item);
        self.nodes[prev as usize].next = handle;
        self.nodes[at as usize].prev = handle;
        handle
    }

    /// Takes the item at `handle` out of `list`, which holds it.
    pub(crate) fn remove(&mut self, list: &mut List, handle: Handle) -> T {
        let node = &mut self.nodes[handle as usize];
        let item = node.item.take().expect("the handle is of an item in a list");
        let (prev, next) = (node.prev, node.next);
        node.next = self.free;
        self.free = handle;
        match prev {
            NONE => list.head = next,
            prev => self.nodes[prev as usize].next = next,
        }
        match next {
            NONE => list.tail = prev,
            next => self.nodes[next as usize].prev = prev,
        }
        self.len -= 1;
        if self.len == 0 && self.nodes.len() > KEPT_PLACES {
            *self = Self::new();
        }
        item
    }

    fn place(&mut self, prev: Handle, next: Handle, item: T) -> Handle {
        self.len += 1;
        let node = Node { prev, next, item: Some(item) };
        if self.free == NONE {
            let handle = Handle::try_from(self.nodes.len()).ok().filter(|&handle| handle != NONE);
            self.nodes.push(node);
            return handle.expect("a queue holds fewer than 2^32 - 1 items");
        }
        let handle = self.free;
        let place = &mut self.nodes[handle as usize];
        self.free = place.next;
        *place = node;
        handle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(arena: &mut Arena<u32>, list: &mut List) -> Vec<u32> {
        let mut out = Vec::new();
        while let Some(first) = list.first() {
            out.push(arena.remove(list, first));
        }
        out
    }

    #[test]
    fn keeps_the_order_of_each_list() {
        let (mut arena, mut a, mut b) = (Arena::new(), List::EMPTY, List::EMPTY);
        arena.push_back(&mut a, 2);
        arena.push_back(&mut b, 20);
        arena.push_back(&mut a, 3);
        arena.push_front(&mut a, 1);
        arena.push_front(&mut b, 10);
        assert_eq!(arena.len(), 5);
        assert_eq!(drain(&mut arena, &mut a), [1, 2, 3]);
        assert_eq!(drain(&mut arena, &mut b), [10, 20]);
        assert!(a.is_empty() && b.is_empty());
    }

    #[test]
    fn removes_and_inserts_in_the_middle() {
        let (mut arena, mut list) = (Arena::new(), List::EMPTY);
        arena.push_back(&mut list, 1);
        let two = arena.push_back(&mut list, 2);
        let three = arena.push_back(&mut list, 3);
        assert_eq!(arena.remove(&mut list, two), 2);
        arena.insert_before(&mut list, three, 4);
        let first = list.first().unwrap();
        arena.insert_before(&mut list, first, 5);
        assert_eq!(drain(&mut arena, &mut list), [5, 1, 4, 3]);
    }

    #[test]
    fn uses_a_freed_place_again() {
        let (mut arena, mut list) = (Arena::new(), List::EMPTY);
        for item in 0..1000 {
            let handle = arena.push_back(&mut list, item);
            assert_eq!(arena.remove(&mut list, handle), item);
        }
        assert_eq!(arena.nodes.len(), 1);
    }

    #[test]
    fn gives_the_memory_of_a_burst_back() {
        let (mut arena, mut list) = (Arena::new(), List::EMPTY);
        for item in 0..=KEPT_PLACES as u32 {
            arena.push_back(&mut list, item);
        }
        drain(&mut arena, &mut list);
        assert_eq!(arena.nodes.capacity(), 0);
    }
}
