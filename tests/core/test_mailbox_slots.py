"""Mailbox: capacity, slots, settlement and counters."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_capacity_is_at_least_one(rig, capacity):
    with pytest.raises(ValueError, match="capacity"):
        rig.mailbox(capacity=capacity)
    mailbox = rig.mailbox()
    with pytest.raises(ValueError, match="capacity"):
        mailbox.configure(capacity=capacity)
    assert mailbox.capacity == 100


def test_an_unknown_overflow_policy_is_refused(rig):
    with pytest.raises(ValueError, match="drop_some"):
        rig.mailbox(overflow="drop_some")
    mailbox = rig.mailbox()
    with pytest.raises(ValueError, match="drop_some"):
        mailbox.configure(overflow="drop_some")
    assert mailbox.overflow == "block"


def test_it_knows_its_configuration(rig):
    mailbox = rig.mailbox(capacity=7, overflow="drop_old")
    assert (mailbox.capacity, mailbox.overflow, mailbox.closed) == (7, "drop_old", False)
    assert mailbox.settler.mailbox is mailbox


def test_each_part_of_the_configuration_can_be_changed_alone(rig):
    mailbox = rig.mailbox(capacity=7)
    mailbox.configure(overflow="reject")
    assert (mailbox.capacity, mailbox.overflow) == (7, "reject")
    mailbox.configure(capacity=9)
    assert (mailbox.capacity, mailbox.overflow) == (9, "reject")


def room(rig, mailbox):
    """How many more messages go in."""
    mailbox.configure(overflow="drop_new")
    count = 0
    while rig.publish_nowait("jobs", None) is not None:
        count += 1
    return count


def test_a_slot_is_taken_on_entry_and_given_back_at_ack(rig):
    mailbox = rig.mailbox("jobs", capacity=3)
    rig.publish_nowait("jobs", None)
    message = mailbox.take()
    assert mailbox.stats().in_flight == 1
    mailbox.ack(message)
    assert mailbox.stats().in_flight == 0
    assert room(rig, mailbox) == 3


def test_messages_in_flight_keep_their_slot(rig):
    mailbox = rig.mailbox("jobs", capacity=3)
    rig.publish_nowait("jobs", None)
    mailbox.take()
    assert room(rig, mailbox) == 2


def test_parked_messages_keep_their_slot(rig):
    mailbox = rig.mailbox("jobs", capacity=3)
    rig.publish_nowait("jobs", None, key="k")
    rig.publish_nowait("jobs", None, key="k")
    mailbox.take()
    assert mailbox.take() is None
    assert mailbox.stats().parked == 1
    assert room(rig, mailbox) == 1


def test_delayed_messages_keep_their_slot(rig):
    mailbox = rig.mailbox("jobs", capacity=3)
    rig.publish_nowait("jobs", None, delay=5)
    assert mailbox.stats().delayed == 1
    assert room(rig, mailbox) == 2


@pytest.mark.parametrize("delay_ns", [0, 1000])
def test_a_retry_keeps_its_slot(rig, delay_ns):
    mailbox = rig.mailbox("jobs", capacity=3)
    rig.publish_nowait("jobs", None)
    mailbox.retry(mailbox.take(), delay_ns)
    assert room(rig, mailbox) == 2


def test_a_release_keeps_its_slot(rig):
    mailbox = rig.mailbox("jobs", capacity=3)
    rig.publish_nowait("jobs", None)
    mailbox.release(mailbox.take())
    assert room(rig, mailbox) == 2


def test_offers_go_past_the_capacity_and_count(rig):
    mailbox = rig.mailbox("jobs", capacity=2)
    for number in range(5):
        mailbox.offer(rig.message(number))
    assert mailbox.stats().queued == 5
    assert room(rig, mailbox) == 0
    for _ in range(4):
        mailbox.ack(mailbox.take())
    assert room(rig, mailbox) == 1


def test_an_offered_message_arrives_with_all_it_has(rig):
    mailbox = rig.mailbox()
    message = rig.message("x", priority=3, headers={"h": "v"}, delivery="lease", attempt=4, timestamp_ns=9)
    mailbox.offer(message)
    taken = mailbox.take()
    assert (taken.id, taken.payload, taken.priority) == (message.id, "x", 3)
    assert (dict(taken.headers), taken.delivery, taken.attempt) == ({"h": "v"}, "lease", 4)
    assert taken.timestamp_ns == 9


def test_nothing_can_be_offered_to_a_closed_mailbox(rig):
    mailbox = rig.mailbox()
    mailbox.close()
    with pytest.raises(RuntimeError, match="closed"):
        mailbox.offer(rig.message())
    assert mailbox.depth() == 0


@pytest.mark.parametrize("verb", ["ack", "retry", "release"])
def test_only_what_is_in_flight_here_can_be_settled(rig, verb):
    mailbox, other = rig.mailbox("jobs"), rig.mailbox()
    rest = (0,) if verb == "retry" else ()
    rig.publish_nowait("jobs", None)
    message = mailbox.take()
    with pytest.raises(ValueError, match=message.id):
        getattr(other, verb)(message, *rest)
    mailbox.ack(message)
    with pytest.raises(ValueError, match=message.id):
        getattr(mailbox, verb)(message, *rest)
    with pytest.raises(ValueError, match="00"):
        getattr(mailbox, verb)(rig.message(), *rest)
    stats = mailbox.stats()
    assert (stats.acked, stats.retried, stats.released, stats.in_flight, stats.queued) == (1, 0, 0, 0, 0)


def test_a_retry_is_delivered_again_with_the_next_attempt_behind_its_equals(rig, drain):
    mailbox = rig.mailbox("jobs")
    for name in "ab":
        rig.publish_nowait("jobs", name, headers={"of": name})
    rig.publish_nowait("jobs", "later", priority=60)
    first = mailbox.take()
    assert first._settle()
    mailbox.retry(first, 0)
    assert first.attempt == 1
    assert mailbox.take().payload == "b"
    again = mailbox.take()
    assert (again.payload, again.attempt, again.id, dict(again.headers)) == ("a", 2, first.id, {"of": "a"})
    assert again.settled is False
    mailbox.retry(again, 0)
    assert mailbox.take().attempt == 3
    assert drain(mailbox) == ["later"]


def test_a_release_goes_back_before_its_equals_untouched(rig):
    mailbox = rig.mailbox("jobs")
    for name in "abc":
        rig.publish_nowait("jobs", name)
    a, b = mailbox.take(), mailbox.take()
    assert a._settle()
    mailbox.release(b)
    mailbox.release(a)
    again = mailbox.take()
    assert (again.payload, again.attempt, again.settled) == ("a", 1, False)
    assert mailbox.take().payload == "b"
    assert mailbox.take().payload == "c"


def test_a_released_message_has_its_lease_again(rig):
    mailbox = rig.mailbox("jobs")
    rig.publish_nowait("jobs", None)
    message = mailbox.take()
    message._lose_lease()
    mailbox.release(message)
    assert mailbox.take().lease_lost is False
    assert message.lease_lost is True


def test_a_release_does_not_overtake_what_is_more_urgent(rig):
    mailbox = rig.mailbox("jobs")
    rig.publish_nowait("jobs", "released")
    message = mailbox.take()
    rig.publish_nowait("jobs", "urgent", priority=0)
    mailbox.release(message)
    assert mailbox.take().payload == "urgent"


def test_depth_counts_what_is_not_in_flight(rig):
    mailbox = rig.mailbox("jobs")
    rig.publish_nowait("jobs", 1, key="k")
    rig.publish_nowait("jobs", 2, key="k")
    rig.publish_nowait("jobs", 3, delay=1)
    rig.publish_nowait("jobs", 4)
    assert mailbox.depth() == 4
    mailbox.take()
    assert mailbox.take().payload == 4
    assert mailbox.take() is None
    assert mailbox.depth() == 2


def test_statistics_count_every_way_a_message_goes(rig):
    mailbox = rig.mailbox("jobs", capacity=5)
    for number in range(5):
        rig.publish_nowait("jobs", number)
    assert mailbox.stats()[:6] == (5, 5, 0, 0, 0, 0)
    mailbox.ack(mailbox.take())
    mailbox.retry(mailbox.take(), 10)
    mailbox.release(mailbox.take())
    mailbox.take()
    stats = mailbox.stats()
    assert (stats.capacity, stats.queued, stats.parked, stats.delayed) == (5, 2, 0, 1)
    assert (stats.in_flight, stats.waiting) == (1, 0)
    assert (stats.delivered, stats.acked, stats.retried, stats.released) == (4, 1, 1, 1)
    assert (stats.dropped, stats.expired) == (0, 0)


def test_it_can_be_weakly_referenced_and_hashed(rig):
    import weakref

    mailbox = rig.mailbox()
    assert weakref.ref(mailbox)() is mailbox
    assert {mailbox: 1}[mailbox] == 1
