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
