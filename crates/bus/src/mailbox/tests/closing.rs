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
