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
