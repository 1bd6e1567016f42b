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
#[should_panic(expected = "has not joined")]
fn a_stranger_cannot_rest() {
    mailbox(1, Overflow::Block).idle(3);
}
