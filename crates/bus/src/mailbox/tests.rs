mod closing;
mod order;
mod slots;
mod time;
mod wall;
mod workers;

use super::*;

/// An item with a name and, after a colon, its key.
#[derive(Debug, PartialEq, Eq)]
struct Item(&'static str);

impl Keyed for Item {
    fn key(&self) -> Option<&str> {
        self.0.split_once(':').map(|(_, key)| key)
    }
}

type Named = Mailbox<Item, &'static str>;

fn mailbox(capacity: usize, overflow: Overflow) -> Named {
    Mailbox::new(MailboxConfig { capacity, overflow, hold_keys: true })
}

fn put(mailbox: &Named, items: &[(i64, &'static str)]) {
    for &(rank, item) in items {
        assert!(mailbox.offer(rank, Item(item)).is_ok());
    }
}

fn take(mailbox: &Named) -> Option<&'static str> {
    mailbox.take().map(|(_, item)| item.0)
}

fn take_all(mailbox: &Named) -> Vec<&'static str> {
    std::iter::from_fn(|| take(mailbox)).collect()
}

#[test]
fn figures_include_the_sampled_times() {
    let mailbox = mailbox(1, Overflow::Block);
    mailbox.record_wait(150);
    mailbox.record_handle(1_000);
    mailbox.record_handle(1_000);
    let stats = mailbox.stats();
    assert_eq!((stats.wait.count(), stats.wait.sum_ns), (1, 150));
    assert_eq!((stats.handle.count(), stats.handle.sum_ns), (2, 2_000));
    assert_eq!(stats.capacity, 1);
}

#[test]
fn a_visit_sees_all_that_is_not_in_flight() {
    let mailbox = mailbox(9, Overflow::Reject);
    put(&mailbox, &[(0, "taken:k"), (1, "parked:k"), (300, "queued")]);
    assert_eq!(take(&mailbox), Some("taken:k"));
    for _ in 0..2 {
        assert_eq!(mailbox.reserve("p"), Reserve::Granted);
    }
    drop(mailbox.delay(1, Item("delayed"), 9, 0));
    drop(mailbox.delay_until(1, Item("held"), 9, 0));
    let mut seen = Vec::new();
    assert!(mailbox.visit(|item| {
        seen.push(item.0);
        true
    }));
    seen.sort_unstable();
    assert_eq!(seen, ["delayed", "held", "parked:k", "queued"]);
    assert!(!mailbox.visit(|_| false));
}

#[test]
fn many_are_taken_and_acknowledged_in_one_step() {
    let mailbox = mailbox(3, Overflow::Block);
    put(&mailbox, &[(1, "b:k"), (0, "a"), (2, "c:k")]);
    assert_eq!(mailbox.reserve("p"), Reserve::Waiting);
    let mut items = Vec::new();
    mailbox.take_many(9, &mut items);
    assert_eq!(items, [(0, Item("a")), (1, Item("b:k"))]);
    let (granted, wake) = mailbox.ack_many(items.iter().map(|(_, item)| item.key()));
    assert_eq!((granted, wake), (vec!["p"], None));
    mailbox.take_many(1, &mut items);
    mailbox.take_many(1, &mut items);
    assert_eq!(items[2..], [(2, Item("c:k"))]);
    assert_eq!((mailbox.stats().acked, mailbox.stats().in_flight), (2, 1));
}

#[test]
fn many_enter_in_one_step_for_as_long_as_there_is_room() {
    let mailbox = mailbox(3, Overflow::DropOld);
    let worker = mailbox.join();
    assert!(mailbox.idle(worker));
    let mut items = ["a", "b:k", "c", "d"].into_iter().map(Item);
    assert_eq!(mailbox.push_many(5, &mut items), (3, Some(worker)));
    assert_eq!(mailbox.push_many(0, &mut items), (0, None), "a policy is for single items");
    assert_eq!(items.next(), Some(Item("d")), "it is asked only when there is room");
    assert_eq!(take_all(&mailbox), ["a", "b:k", "c"]);
    for rank in [5, 300] {
        assert_eq!(mailbox.push_many(rank, std::iter::empty()), (0, None));
        assert_eq!(take(&mailbox), None);
    }
    drop(mailbox.close());
    assert_eq!(mailbox.push_many(0, std::iter::once(Item("e"))), (0, None));
}

#[test]
fn many_of_a_key_in_flight_enter_and_wait_their_turn() {
    let mailbox = mailbox(9, Overflow::Block);
    put(&mailbox, &[(5, "a:k")]);
    assert_eq!(take(&mailbox), Some("a:k"));
    let items = || ["b:k", "c", "d:k"].into_iter().map(Item);
    assert_eq!(mailbox.push_many(5, items()), (3, None));
    assert_eq!(mailbox.push_many(300, items()), (3, None));
    assert_eq!(take_all(&mailbox), ["c", "c"]);
    let _ = mailbox.ack(Some("k"));
    assert_eq!(take_all(&mailbox), ["b:k"]);
}
