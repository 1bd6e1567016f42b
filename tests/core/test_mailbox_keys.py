"""Mailbox: one message of a key at a time."""

from __future__ import annotations

import pytest


def put(rig, *names, **options):
    """Publish ``a1`` with key ``a``, ``-x`` without one."""
    for name in names:
        key = None if name.startswith("-") else name[0]
        rig.publish_nowait("jobs", name, key=key, **options)


def payload(message):
    return None if message is None else message.payload


def test_a_key_in_flight_parks_its_later_messages_and_lets_others_pass(rig):
    mailbox = rig.mailbox("jobs")
    put(rig, "a1", "a2", "b1", "-x", "a3")
    a1 = mailbox.take()
    assert a1.payload == "a1"
    assert payload(mailbox.take()) == "b1"
    assert payload(mailbox.take()) == "-x"
    assert mailbox.take() is None
    stats = mailbox.stats()
    assert (stats.parked, stats.queued) == (2, 0)


def test_ack_gives_the_key_to_the_next_in_order(rig):
    mailbox = rig.mailbox("jobs")
    put(rig, "a1", "a2", "a3")
    for name in ("a1", "a2", "a3"):
        message = mailbox.take()
        assert message.payload == name
        assert mailbox.take() is None
        mailbox.ack(message)
    assert mailbox.take() is None
    assert mailbox.stats().parked == 0


def test_parked_messages_keep_their_place_among_their_equals(rig):
    mailbox = rig.mailbox("jobs")
    put(rig, "a1", "b1", "a2", "b2", "-x")
    a1, b1 = mailbox.take(), mailbox.take()
    x = mailbox.take()
    assert [a1.payload, b1.payload, x.payload] == ["a1", "b1", "-x"]
    put(rig, "-y")
    mailbox.ack(b1)
    mailbox.ack(a1)
    assert [payload(mailbox.take()) for _ in range(3)] == ["a2", "b2", "-y"]


def test_the_most_urgent_parked_message_of_a_key_is_next(rig):
    mailbox = rig.mailbox("jobs")
    put(rig, "a1")
    a1 = mailbox.take()
    put(rig, "a2", "a3", priority=90)
    put(rig, "a4", priority=10)
    put(rig, "-x", priority=50)
    assert payload(mailbox.take()) == "-x"
    assert mailbox.take() is None
    mailbox.ack(a1)
    order = []
    while (message := mailbox.take()) is not None:
        order.append(message.payload)
        mailbox.ack(message)
    assert order == ["a4", "a2", "a3"]


def test_a_more_urgent_newcomer_of_a_free_key_goes_first_and_the_order_of_the_others_holds(rig):
    mailbox = rig.mailbox("jobs")
    put(rig, "a1", "a2", "a3", "a4")
    a1 = mailbox.take()
    assert mailbox.take() is None
    mailbox.ack(a1)
    put(rig, "a9", priority=0)
    order = []
    while (message := mailbox.take()) is not None:
        assert mailbox.take() is None
        order.append(message.payload)
        mailbox.ack(message)
    assert order == ["a9", "a2", "a3", "a4"]


def test_keys_are_compared_by_value(rig):
    mailbox = rig.mailbox("jobs")
    rig.publish_nowait("jobs", 1, key="key"[:2] + "y")
    rig.publish_nowait("jobs", 2, key="key")
    rig.publish_nowait("jobs", 3, key="")
    mailbox.take()
    assert payload(mailbox.take()) == 3
    assert mailbox.take() is None


def test_a_retry_keeps_its_key_while_it_waits(rig):
    mailbox = rig.mailbox("jobs", hold_keys=True)
    put(rig, "a1", "a2", "b1")
    mailbox.retry(mailbox.take(), 1000)
    assert payload(mailbox.take()) == "b1"
    assert mailbox.take() is None
    rig.clock.advance(1000)
    assert mailbox.promote() is None
    again = mailbox.take()
    assert (again.payload, again.attempt) == ("a1", 2)
    assert mailbox.take() is None
    mailbox.ack(again)
    assert payload(mailbox.take()) == "a2"


def test_a_retry_without_delay_comes_before_its_key_s_successors(rig):
    mailbox = rig.mailbox("jobs", hold_keys=True)
    put(rig, "a1", "a2", "-x")
    mailbox.retry(mailbox.take(), 0)
    assert payload(mailbox.take()) == "-x"
    again = mailbox.take()
    assert (again.payload, again.attempt) == ("a1", 2)
    assert mailbox.take() is None
    mailbox.ack(again)
    assert payload(mailbox.take()) == "a2"


def test_without_holding_the_key_passes_on_while_a_retry_waits(rig):
    mailbox = rig.mailbox("jobs", hold_keys=False)
    put(rig, "a1", "a2", "a3")
    mailbox.retry(mailbox.take(), 1000)
    a2 = mailbox.take()
    assert a2.payload == "a2"
    rig.clock.advance(1000)
    mailbox.promote()
    assert mailbox.take() is None
    mailbox.ack(a2)
    a3 = mailbox.take()
    assert a3.payload == "a3"
    mailbox.ack(a3)
    assert payload(mailbox.take()) == "a1"


def test_a_released_message_is_the_next_of_its_key(rig):
    mailbox = rig.mailbox("jobs")
    put(rig, "a1", "a2", "a3")
    a1 = mailbox.take()
    assert mailbox.take() is None
    mailbox.release(a1)
    for name in ("a1", "a2", "a3"):
        message = mailbox.take()
        assert message.payload == name
        assert mailbox.take() is None
        mailbox.ack(message)


def test_a_delayed_message_does_not_hold_its_key_before_it_is_taken(rig):
    mailbox = rig.mailbox("jobs")
    put(rig, "a1", delay=5)
    put(rig, "a2")
    a2 = mailbox.take()
    assert a2.payload == "a2"
    rig.clock.advance(5_000_000_000)
    mailbox.promote()
    assert mailbox.take() is None
    mailbox.ack(a2)
    assert payload(mailbox.take()) == "a1"


@pytest.mark.parametrize("remove", ["clear", "take_relaxed"])
def test_a_key_held_for_a_retry_is_free_once_that_is_taken_out(rig, remove):
    mailbox = rig.mailbox("jobs", hold_keys=True)
    put(rig, "a1")
    mailbox.retry(mailbox.take(), 0)
    if remove == "clear":
        assert [message.payload for message in mailbox.clear()] == ["a1"]
    else:
        assert mailbox.take_relaxed(0).payload == "a1"
    put(rig, "a2")
    assert payload(mailbox.take()) == "a2"


def test_a_key_held_for_a_delayed_retry_is_free_once_that_is_cleared(rig):
    mailbox = rig.mailbox("jobs", hold_keys=True)
    put(rig, "a1", "a2")
    mailbox.retry(mailbox.take(), 1000)
    assert mailbox.take() is None
    assert {message.payload for message in mailbox.clear()} == {"a1", "a2"}
    put(rig, "a3")
    assert payload(mailbox.take()) == "a3"


def test_clearing_does_not_free_the_key_of_what_is_in_flight(rig):
    mailbox = rig.mailbox("jobs")
    put(rig, "a1", "a2")
    a1 = mailbox.take()
    assert mailbox.take() is None
    mailbox.clear()
    put(rig, "a3")
    assert mailbox.take() is None
    mailbox.ack(a1)
    assert payload(mailbox.take()) == "a3"


def test_an_expired_message_gives_its_key_to_the_next(rig):
    mailbox = rig.mailbox("jobs", hold_keys=True)
    put(rig, "a1", ttl=5)
    put(rig, "a2")
    mailbox.retry(mailbox.take(), 0)
    rig.clock.advance(5_000_000_000)
    assert payload(mailbox.take()) == "a2"
    assert [message.payload for message in mailbox.settler.expired_messages] == ["a1"]


def test_every_mailbox_has_keys_of_its_own(rig):
    one, other = rig.mailbox("jobs"), rig.mailbox("jobs")
    put(rig, "a1", "a2")
    assert payload(one.take()) == "a1"
    assert payload(other.take()) == "a1"
    assert one.take() is None


def test_thousands_of_keys_leave_nothing_behind(rig, drain):
    mailbox = rig.mailbox("jobs", capacity=10_000)
    for number in range(3000):
        rig.publish_nowait("jobs", number, key=f"key {number % 1500}")
    assert drain(mailbox) == list(range(3000))
    assert mailbox.stats()[1:5] == (0, 0, 0, 0)
