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

mod slots {
    use super::*;

    #[test]
    fn a_slot_is_taken_until_the_ack() {
        let mailbox = mailbox(1, Overflow::Reject);
        assert_eq!(mailbox.push(0, Item("a")), Push::Queued(None));
        assert_eq!(mailbox.push(0, Item("b")), Push::Rejected(Item("b")));
        assert_eq!(take(&mailbox), Some("a"));
        assert_eq!(mailbox.push(0, Item("c")), Push::Rejected(Item("c")));
        assert_eq!(mailbox.ack(None), Acked { granted: None, wake: None });
        assert_eq!(mailbox.push(0, Item("d")), Push::Queued(None));
    }

    #[test]
    fn each_policy_has_its_answer() {
        for (overflow, answer) in [
            (Overflow::Block, Push::Full(Item("b"))),
            (Overflow::DropNew, Push::Dropped(Item("b"))),
            (Overflow::Reject, Push::Rejected(Item("b"))),
            (Overflow::DropOld, Push::Replaced { evicted: Item("a"), wake: None }),
        ] {
            let mailbox = mailbox(1, overflow);
            put(&mailbox, &[(0, "a")]);
            assert_eq!(mailbox.push(0, Item("b")), answer);
        }
    }

    #[test]
    fn only_drops_are_counted_as_dropped() {
        for (overflow, dropped) in [
            (Overflow::Block, 0),
            (Overflow::DropNew, 1),
            (Overflow::Reject, 0),
            (Overflow::DropOld, 1),
        ] {
            let mailbox = mailbox(1, overflow);
            put(&mailbox, &[(0, "a")]);
            let _ = mailbox.push(0, Item("b"));
            assert_eq!(mailbox.stats().dropped, dropped, "{overflow:?}");
        }
    }

    #[test]
    fn the_oldest_of_the_least_urgent_is_evicted_queued_or_parked() {
        let mailbox = mailbox(4, Overflow::DropOld);
        put(&mailbox, &[(9, "a:k"), (9, "b:k"), (9, "c"), (1, "d")]);
        assert_eq!(take(&mailbox), Some("d"));
        assert_eq!(take(&mailbox), Some("a:k"));
        assert_eq!(take(&mailbox), Some("c"));
        assert_eq!(mailbox.stats().parked, 1);
        let evicted = |item| match mailbox.push(9, Item(item)) {
            Push::Replaced { evicted, .. } => evicted.0,
            other => panic!("{other:?}"),
        };
        assert_eq!(evicted("e"), "b:k");
        assert_eq!(evicted("f"), "e");
    }

    #[test]
    fn what_is_in_flight_is_not_evicted() {
        let mailbox = mailbox(1, Overflow::DropOld);
        put(&mailbox, &[(0, "a")]);
        take(&mailbox);
        assert_eq!(mailbox.push(0, Item("b")), Push::Dropped(Item("b")));
        assert_eq!(mailbox.reserve("w"), Reserve::DropNew("w"));
        assert_eq!(mailbox.stats().dropped, 2);
    }

    #[test]
    fn publishers_wait_in_line_and_nobody_overtakes_them() {
        let mailbox = mailbox(2, Overflow::Block);
        put(&mailbox, &[(0, "a"), (0, "b")]);
        assert_eq!(mailbox.reserve("first"), Reserve::Waiting);
        assert_eq!(mailbox.reserve("second"), Reserve::Waiting);
        take_all(&mailbox);
        assert_eq!(mailbox.ack(None).granted, Some("first"));
        assert_eq!(mailbox.push(0, Item("c")), Push::Full(Item("c")));
        assert_eq!(mailbox.settle_and_take(None), (Some("second"), None));
        let queued = Entered::Queued { evicted: None, wake: None };
        assert_eq!(mailbox.enter(0, Item("d")), queued);
        assert_eq!(mailbox.enter(0, Item("e")), queued);
        assert_eq!(take_all(&mailbox), ["d", "e"]);
    }

    #[test]
    fn a_slot_given_back_goes_to_the_next_in_line() {
        let mailbox = mailbox(1, Overflow::Block);
        assert_eq!(mailbox.reserve("a"), Reserve::Granted);
        assert_eq!(mailbox.reserve("b"), Reserve::Waiting);
        assert_eq!(mailbox.unreserve(), Some("b"));
        assert_eq!(mailbox.unreserve(), None);
        assert_eq!(mailbox.push(0, Item("c")), Push::Queued(None));
    }

    #[test]
    fn a_cancelled_ticket_is_not_granted() {
        let mailbox = mailbox(1, Overflow::Block);
        put(&mailbox, &[(0, "x")]);
        for ticket in ["a", "b"] {
            assert_eq!(mailbox.reserve(ticket), Reserve::Waiting);
        }
        assert!(mailbox.cancel(|ticket| *ticket == "a"));
        assert!(!mailbox.cancel(|ticket| *ticket == "a"));
        take(&mailbox);
        assert_eq!(mailbox.ack(None).granted, Some("b"));
        assert!(!mailbox.cancel(|ticket| *ticket == "b"));
    }

    #[test]
    fn a_reservation_under_drop_old_evicts_on_entry() {
        let mailbox = mailbox(1, Overflow::DropOld);
        put(&mailbox, &[(0, "a")]);
        assert_eq!(mailbox.reserve("w"), Reserve::Granted);
        assert_eq!(mailbox.reserve("v"), Reserve::DropNew("v"), "one item makes room once");
        let entered = Entered::Queued { evicted: Some(Item("a")), wake: None };
        assert_eq!(mailbox.enter(0, Item("b")), entered);
        assert_eq!(take_all(&mailbox), ["b"]);
    }

    #[test]
    fn more_capacity_is_granted_at_once() {
        let mailbox = mailbox(1, Overflow::Block);
        put(&mailbox, &[(0, "x")]);
        for ticket in ["a", "b", "c"] {
            assert_eq!(mailbox.reserve(ticket), Reserve::Waiting);
        }
        assert_eq!(mailbox.configure(Some(3), None), ["a", "b"]);
        assert_eq!(mailbox.configure(Some(1), None), [""; 0]);
        assert_eq!(mailbox.configure(None, Some(Overflow::DropOld)), [""; 0], "all is owed");
        assert_eq!((mailbox.capacity(), mailbox.overflow()), (1, Overflow::DropOld));
    }

    #[test]
    fn an_offer_goes_past_the_capacity_and_has_to_be_worked_off() {
        let mailbox = mailbox(1, Overflow::Reject);
        put(&mailbox, &[(0, "a"), (0, "b")]);
        take_all(&mailbox);
        let _ = mailbox.ack(None);
        assert_eq!(mailbox.push(0, Item("c")), Push::Rejected(Item("c")));
        let _ = mailbox.ack(None);
        assert_eq!(mailbox.push(0, Item("c")), Push::Queued(None));
    }

    #[test]
    #[should_panic(expected = "nobody took")]
    fn an_ack_of_nothing_is_a_fault() {
        let _ = mailbox(1, Overflow::Block).ack(None);
    }

    #[test]
    #[should_panic(expected = "nobody reserved")]
    fn an_entry_without_a_reservation_is_a_fault() {
        let _ = mailbox(1, Overflow::Block).enter(0, Item("a"));
    }
}

mod order {
    use super::*;

    #[test]
    fn a_released_item_is_before_its_equals_and_a_retried_one_behind() {
        let mailbox = mailbox(9, Overflow::Block);
        put(&mailbox, &[(5, "a"), (5, "b"), (5, "c")]);
        let (rank, item) = mailbox.take().unwrap();
        mailbox.release(rank, item);
        assert_eq!(take(&mailbox), Some("a"));
        let (rank, item) = mailbox.take().unwrap();
        assert_eq!(mailbox.retry(rank, item, 7, 7).earliest_changed, None);
        assert_eq!(take_all(&mailbox), ["c", "b"]);
        let stats = mailbox.stats();
        assert_eq!((stats.released, stats.retried, stats.delivered), (1, 1, 5));
    }

    #[test]
    fn a_key_is_in_flight_once_and_others_pass() {
        let mailbox = mailbox(9, Overflow::Block);
        put(&mailbox, &[(5, "a:k"), (5, "b:k"), (5, "c:j"), (5, "d"), (9, "e:k")]);
        assert_eq!(take_all(&mailbox), ["a:k", "c:j", "d"]);
        let stats = mailbox.stats();
        assert_eq!((stats.queued, stats.parked, stats.in_flight), (0, 2, 3));
        assert_eq!(mailbox.settle_and_take(Some("k")), (None, Some((5, Item("b:k")))));
        assert_eq!(take(&mailbox), None);
        let _ = mailbox.ack(Some("k"));
        assert_eq!(take(&mailbox), Some("e:k"));
    }

    #[test]
    fn a_parked_item_is_not_overtaken_by_its_equals() {
        let mailbox = mailbox(9, Overflow::Block);
        put(&mailbox, &[(0, "a:k"), (5, "x"), (5, "b:k"), (5, "c:j")]);
        assert_eq!(take(&mailbox), Some("a:k"));
        put(&mailbox, &[(5, "d:k")]);
        let _ = mailbox.ack(Some("k"));
        assert_eq!(take_all(&mailbox), ["x", "b:k", "c:j"]);
        let _ = mailbox.ack(Some("k"));
        assert_eq!(take_all(&mailbox), ["d:k"]);
    }

    #[test]
    fn the_most_urgent_of_a_key_is_next() {
        let mailbox = mailbox(9, Overflow::Block);
        put(&mailbox, &[(5, "a:k"), (5, "b:k"), (7, "c:k"), (1, "d:k")]);
        assert_eq!(take_all(&mailbox), ["d:k"]);
        put(&mailbox, &[(2, "e:k")]);
        for next in ["e:k", "a:k", "b:k", "c:k"] {
            let _ = mailbox.ack(Some("k"));
            assert_eq!(take_all(&mailbox), [next]);
        }
    }

    #[test]
    fn a_released_item_is_the_next_of_its_key() {
        let mailbox = mailbox(9, Overflow::Block);
        put(&mailbox, &[(5, "a:k"), (5, "b:k")]);
        let (rank, item) = mailbox.take().unwrap();
        assert_eq!(take(&mailbox), None);
        mailbox.release(rank, item);
        assert_eq!(take_all(&mailbox), ["a:k"]);
    }

    #[test]
    fn clearing_leaves_what_is_in_flight() {
        let mailbox = mailbox(7, Overflow::Block);
        put(&mailbox, &[(5, "a:k"), (5, "b:k"), (3, "c:j"), (9, "d")]);
        assert_eq!(take(&mailbox), Some("c:j"));
        let (rank, item) = mailbox.take().unwrap();
        assert_eq!(mailbox.retry(rank, item, 10, 0).earliest_changed, Some(10));
        assert_eq!(take(&mailbox), Some("d"));
        put(&mailbox, &[(5, "e"), (0, "f")]);
        assert_eq!(mailbox.reserve("w"), Reserve::Granted);
        assert_eq!(mailbox.reserve("v"), Reserve::Waiting);
        let cleared = mailbox.clear();
        let names: Vec<_> = cleared.items.iter().map(|(rank, item)| (*rank, item.0)).collect();
        assert_eq!(names, [(0, "f"), (5, "b:k"), (5, "e"), (5, "a:k")]);
        assert_eq!((cleared.granted, mailbox.depth()), (vec!["v"], 0));
        put(&mailbox, &[(5, "g:k"), (5, "h:j")]);
        assert_eq!(take_all(&mailbox), ["g:k"], "k was only held by what is gone, j is in flight");
    }

    #[test]
    fn the_newest_of_the_least_urgent_goes_back_to_its_transport() {
        let mailbox = mailbox(1, Overflow::Block);
        put(&mailbox, &[(5, "a"), (9, "b"), (9, "c")]);
        assert_eq!(mailbox.most_relaxed(), Some(9));
        assert_eq!(mailbox.depths(), [(5, 1), (9, 2)]);
        assert_eq!(mailbox.take_relaxed(9).item, None);
        assert_eq!(mailbox.take_relaxed(8).item, Some((9, Item("c"))));
        assert_eq!(mailbox.take_relaxed(0).item, Some((9, Item("b"))));
        assert_eq!(mailbox.reserve("w"), Reserve::Waiting);
        assert_eq!(mailbox.take_relaxed(0).granted, Some("w"));
    }
}

mod time {
    use super::*;

    fn retry(mailbox: &Named, due_ns: u64) -> Retried {
        let (rank, item) = mailbox.take().unwrap();
        mailbox.retry(rank, item, due_ns, 0)
    }

    #[test]
    fn a_retry_keeps_its_slot_and_its_key() {
        let mailbox = mailbox(3, Overflow::Reject);
        put(&mailbox, &[(5, "a:k"), (5, "b:k"), (5, "c")]);
        assert_eq!(retry(&mailbox, 10).earliest_changed, Some(10));
        assert_eq!(take_all(&mailbox), ["c"]);
        assert_eq!(mailbox.push(0, Item("d")), Push::Rejected(Item("d")));
        assert_eq!(mailbox.promote(9), Promoted { next_due: Some(10), wake: None });
        assert_eq!(take(&mailbox), None);
        assert_eq!(mailbox.promote(10), Promoted { next_due: None, wake: None });
        assert_eq!(take_all(&mailbox), ["a:k"]);
        let _ = mailbox.ack(Some("k"));
        assert_eq!(take_all(&mailbox), ["b:k"]);
    }

    #[test]
    fn a_retry_passes_its_key_on_when_keys_are_not_held() {
        let config = MailboxConfig { capacity: 3, overflow: Overflow::Block, hold_keys: false };
        let mailbox = Mailbox::new(config);
        put(&mailbox, &[(5, "a:k"), (5, "b:k")]);
        let _ = retry(&mailbox, 10);
        assert_eq!(take_all(&mailbox), ["b:k"]);
        let _ = mailbox.promote(10);
        assert_eq!(take_all(&mailbox), [""; 0]);
        let _ = mailbox.ack(Some("k"));
        assert_eq!(take_all(&mailbox), ["a:k"]);
    }

    #[test]
    fn an_evicted_holder_frees_its_key() {
        let mailbox = mailbox(2, Overflow::DropOld);
        put(&mailbox, &[(9, "a:k"), (5, "b:k")]);
        assert_eq!(take(&mailbox), Some("b:k"));
        assert_eq!(take(&mailbox), None);
        let _ = mailbox.retry(9, Item("b:k"), 0, 0);
        assert_eq!(mailbox.take_relaxed(0).item, Some((9, Item("b:k"))));
        assert_eq!(take_all(&mailbox), ["a:k"]);
    }

    #[test]
    fn only_an_earlier_time_is_told() {
        let mailbox = mailbox(9, Overflow::Block);
        put(&mailbox, &[(5, "a"), (5, "b"), (5, "c")]);
        let changes = [30, 40, 20].map(|due_ns| retry(&mailbox, due_ns).earliest_changed);
        assert_eq!(changes, [Some(30), None, Some(20)]);
        assert_eq!(mailbox.promote(30).next_due, Some(40));
        assert_eq!(take_all(&mailbox), ["c", "a"]);
    }

    #[test]
    fn a_delayed_publish_holds_its_slot_but_not_its_key() {
        let mailbox = mailbox(2, Overflow::Reject);
        assert_eq!(mailbox.reserve("w"), Reserve::Granted);
        let held = Delayed::Held { evicted: None, earliest_changed: Some(10), wake: None };
        assert_eq!(mailbox.delay(5, Item("a:k"), 10, 0), held);
        put(&mailbox, &[(5, "b:k")]);
        assert_eq!(mailbox.push(5, Item("c")), Push::Rejected(Item("c")));
        assert_eq!((mailbox.stats().delayed, mailbox.depth()), (1, 2));
        assert_eq!(take_all(&mailbox), ["b:k"]);
        let _ = mailbox.ack(Some("k"));
        let _ = mailbox.promote(10);
        assert_eq!(take_all(&mailbox), ["a:k"]);
    }

    #[test]
    fn a_delay_that_is_over_is_none() {
        let mailbox = mailbox(2, Overflow::Reject);
        assert_eq!(mailbox.reserve("w"), Reserve::Granted);
        let held = Delayed::Held { evicted: None, earliest_changed: None, wake: None };
        assert_eq!(mailbox.delay(5, Item("a"), 10, 10), held);
        assert_eq!(take_all(&mailbox), ["a"]);
    }

    #[test]
    fn an_expired_item_was_not_delivered() {
        let mailbox = mailbox(1, Overflow::Block);
        put(&mailbox, &[(5, "a:k")]);
        assert_eq!(mailbox.reserve("w"), Reserve::Waiting);
        take(&mailbox);
        assert_eq!(mailbox.expire(Some("k")).granted, Some("w"));
        let stats = mailbox.stats();
        assert_eq!((stats.delivered, stats.acked, stats.expired), (0, 0, 1));
    }
}

mod workers {
    use super::*;

    #[test]
    fn a_burst_wakes_one_worker_once() {
        let mailbox = mailbox(9, Overflow::Block);
        let workers = [mailbox.join(), mailbox.join()];
        assert!(workers.iter().all(|&worker| mailbox.idle(worker)));
        let Push::Queued(Some(woken)) = mailbox.push(0, Item("a")) else { panic!("no wake") };
        assert_eq!(mailbox.push(0, Item("b")), Push::Queued(None));
        assert!(!mailbox.idle(woken), "there is work");
        take_all(&mailbox);
        assert!(mailbox.idle(woken));
    }

    #[test]
    fn a_worker_that_suspends_hands_over_what_is_left() {
        let mailbox = mailbox(9, Overflow::Block);
        let (a, b) = (mailbox.join(), mailbox.join());
        assert!(mailbox.idle(b));
        put(&mailbox, &[(0, "x"), (0, "y")]);
        take(&mailbox);
        assert_eq!(mailbox.suspended(a), Some(b));
        take(&mailbox);
        assert_eq!(mailbox.suspended(b), None, "nothing is left");
        mailbox.resumed(a);
        assert_eq!(mailbox.push(0, Item("z")), Push::Queued(None), "a will see it");
    }

    #[test]
    fn a_cancelled_worker_passes_its_wake_on() {
        let mailbox = mailbox(9, Overflow::Block);
        let (a, b) = (mailbox.join(), mailbox.join());
        assert!(mailbox.idle(a) && mailbox.idle(b));
        assert_eq!(mailbox.unidle(a), None);
        assert_eq!(mailbox.push(0, Item("x")), Push::Queued(Some(b)));
        assert!(!mailbox.idle(a), "there is work");
        assert_eq!(mailbox.unidle(b), None, "a is active");
        take(&mailbox);
        assert!(mailbox.idle(a));
        put(&mailbox, &[(0, "y")]);
        assert!(!mailbox.idle(b));
        assert_eq!(mailbox.unidle(a), None, "b is active");
        assert_eq!(mailbox.leave(b), None);
        assert_eq!(mailbox.leave(b), None, "twice is harmless");
        assert_eq!(mailbox.workers(), 1);
    }

    #[test]
    fn a_chosen_worker_that_leaves_is_replaced() {
        let mailbox = mailbox(9, Overflow::Block);
        let (a, b) = (mailbox.join(), mailbox.join());
        assert!(mailbox.idle(a) && mailbox.idle(b));
        assert_eq!(mailbox.push(0, Item("x")), Push::Queued(Some(b)));
        assert_eq!(mailbox.leave(b), Some(a));
    }

    #[test]
    fn a_successor_of_a_key_wakes_a_worker() {
        let mailbox = mailbox(9, Overflow::Block);
        let (a, b) = (mailbox.join(), mailbox.join());
        put(&mailbox, &[(0, "x:k"), (0, "y:k")]);
        take(&mailbox);
        assert_eq!(take(&mailbox), None);
        assert!(mailbox.idle(b));
        assert_eq!(mailbox.suspended(a), None, "its key is busy");
        assert_eq!(mailbox.push(0, Item("z:k")), Push::Queued(None), "it would be parked");
        assert_eq!(mailbox.ack(Some("k")).wake, Some(b));
    }

    #[test]
    fn the_last_free_worker_must_not_wait_for_itself() {
        let mailbox = mailbox(2, Overflow::Block);
        let (a, b) = (mailbox.join(), mailbox.join());
        put(&mailbox, &[(0, "x"), (0, "y")]);
        take_all(&mailbox);
        assert_eq!(mailbox.reserve_from(a, "a"), Reserve::Waiting);
        assert_eq!(mailbox.reserve_from(a, "a, again"), Reserve::Waiting);
        assert_eq!(mailbox.reserve_from(b, "b"), Reserve::Deadlock("b"));
        assert_eq!(mailbox.reserve("from elsewhere"), Reserve::Waiting);
        assert_eq!(mailbox.blocked_workers(), 1);
        assert_eq!(mailbox.ack(None).granted, Some("a"));
        assert!(mailbox.cancel(|ticket| *ticket == "a, again"));
        assert_eq!(mailbox.blocked_workers(), 0);
        assert_eq!(mailbox.reserve_from(b, "b"), Reserve::Waiting);
        assert_eq!(mailbox.leave(b), None);
        assert_eq!(mailbox.join(), b, "the id is used again");
        assert_eq!(mailbox.reserve_from(b, "the new b"), Reserve::Waiting);
        assert_eq!(mailbox.ack(None).granted, Some("from elsewhere"));
        assert_eq!(mailbox.unreserve(), Some("b"));
        assert_eq!(mailbox.blocked_workers(), 1, "the new one still waits");
    }

    #[test]
    fn a_worker_is_counted_as_blocked_by_hand_too() {
        let mailbox = mailbox(1, Overflow::Block);
        let (a, b) = (mailbox.join(), mailbox.join());
        assert!(mailbox.block_worker(a));
        assert!(!mailbox.block_worker(b));
        mailbox.unblock_worker(a);
        assert!(mailbox.block_worker(b));
    }

    #[test]
    #[should_panic(expected = "has not joined")]
    fn a_stranger_cannot_rest() {
        mailbox(1, Overflow::Block).idle(3);
    }
}

mod closing {
    use super::*;

    #[test]
    fn a_closed_mailbox_refuses_and_hands_everything_back() {
        let mailbox = mailbox(1, Overflow::Block);
        assert_eq!(mailbox.reserve("granted"), Reserve::Granted);
        assert_eq!(mailbox.reserve("waiting"), Reserve::Waiting);
        assert_eq!(mailbox.close(), Closed { waiters: vec!["waiting"], workers: vec![] });
        assert_eq!(mailbox.push(0, Item("a")), Push::Closed(Item("a")));
        assert_eq!(mailbox.offer(0, Item("a")), Err(Item("a")));
        assert_eq!(mailbox.reserve("w"), Reserve::Closed("w"));
        assert_eq!(mailbox.enter(0, Item("a")), Entered::Closed(Item("a")));
        assert!(mailbox.is_closed() && mailbox.finished());
        let again = Mailbox::<Item, &str>::close(&mailbox);
        assert_eq!(again, Closed { waiters: vec![], workers: vec![] });
    }

    #[test]
    fn a_delayed_entry_is_refused_too() {
        let mailbox = mailbox(1, Overflow::Block);
        assert_eq!(mailbox.reserve("w"), Reserve::Granted);
        let _ = mailbox.close();
        assert_eq!(mailbox.delay(0, Item("a"), 5, 0), Delayed::Closed(Item("a")));
    }

    #[test]
    fn what_is_inside_is_finished_and_the_workers_end_one_by_one() {
        let mailbox = mailbox(9, Overflow::Block);
        let (a, b) = (mailbox.join(), mailbox.join());
        put(&mailbox, &[(0, "x")]);
        let (rank, item) = mailbox.take().unwrap();
        assert!(mailbox.idle(b));
        let _ = mailbox.retry(rank, item, 10, 0);
        assert_eq!(mailbox.close().workers, [b]);
        assert!(!mailbox.finished());
        assert!(mailbox.idle(a) && mailbox.idle(b), "a retry is still to come");
        let woken = mailbox.promote(10).wake;
        assert_eq!((woken, take(&mailbox)), (Some(b), Some("x")));
        let _ = mailbox.ack(None);
        assert!(!mailbox.idle(b) && mailbox.finished());
        assert_eq!(mailbox.leave(b), Some(a));
        assert_eq!(mailbox.leave(a), None);
    }

    #[test]
    fn clearing_a_closed_mailbox_ends_its_workers() {
        let mailbox = mailbox(9, Overflow::Block);
        let a = mailbox.join();
        put(&mailbox, &[(0, "x")]);
        let (rank, item) = mailbox.take().unwrap();
        let _ = mailbox.retry(rank, item, 10, 0);
        let _ = mailbox.close();
        assert!(mailbox.idle(a));
        assert_eq!(mailbox.clear().workers, [a]);
    }
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

mod wall {
    use super::*;

    fn held(evicted: Option<Item>) -> Delayed<Item> {
        Delayed::Held { evicted, earliest_changed: None, wake: None }
    }

    #[test]
    fn what_is_held_by_the_wall_clock_follows_it_either_way() {
        let mailbox = mailbox(2, Overflow::Reject);
        assert_eq!(mailbox.reserve("p"), Reserve::Granted);
        assert_eq!(mailbox.delay_until(5, Item("a"), 100, 50), held(None));
        assert_eq!((mailbox.stats().delayed, mailbox.depth()), (1, 1));
        assert_eq!(mailbox.promote(u64::MAX), Promoted { next_due: None, wake: None });
        assert_eq!(mailbox.promote_until(99), Promoted { next_due: Some(100), wake: None });
        assert_eq!(take(&mailbox), None);
        assert_eq!(mailbox.promote_until(100), Promoted { next_due: None, wake: None });
        assert_eq!(take(&mailbox), Some("a"));
    }

    #[test]
    fn a_time_that_has_passed_holds_nothing() {
        let mailbox = mailbox(1, Overflow::Reject);
        assert_eq!(mailbox.reserve("p"), Reserve::Granted);
        assert_eq!(mailbox.delay_until(5, Item("a"), 50, 50), held(None));
        assert_eq!(take(&mailbox), Some("a"));
    }

    #[test]
    fn clear_takes_it_and_a_closed_mailbox_refuses_it() {
        let mailbox = mailbox(2, Overflow::Reject);
        assert_eq!(mailbox.reserve("p"), Reserve::Granted);
        assert_eq!(mailbox.delay_until(5, Item("a"), 100, 50), held(None));
        assert_eq!(mailbox.clear().items, [(5, Item("a"))]);
        assert_eq!(mailbox.reserve("p"), Reserve::Granted);
        drop(mailbox.close());
        assert_eq!(mailbox.delay_until(5, Item("b"), 100, 50), Delayed::Closed(Item("b")));
    }
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
    let items = mailbox.take_many(9);
    assert_eq!(items, [(0, Item("a")), (1, Item("b:k"))]);
    let (granted, wake) = mailbox.ack_many(items.iter().map(|(_, item)| item.key()));
    assert_eq!((granted, wake), (vec!["p"], None));
    assert_eq!(mailbox.take_many(1), [(2, Item("c:k"))]);
    assert_eq!(mailbox.take_many(1), []);
    assert_eq!((mailbox.stats().acked, mailbox.stats().in_flight), (2, 1));
}
