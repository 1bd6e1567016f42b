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
