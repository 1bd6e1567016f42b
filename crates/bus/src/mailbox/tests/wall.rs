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
