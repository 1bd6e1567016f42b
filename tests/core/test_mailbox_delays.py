"""Mailbox: messages that wait for a time, and messages whose time is over."""

from __future__ import annotations

import math

import pytest

SECOND = 1_000_000_000


@pytest.fixture
def mailbox(rig):
    return rig.mailbox("jobs")


def now(rig):
    return rig.clock.monotonic_ns()


def test_a_delayed_message_waits_for_promote_at_its_time(rig, mailbox):
    rig.publish_nowait("jobs", "later", delay=5)
    assert mailbox.take() is None
    assert mailbox.promote() == now(rig) + 5 * SECOND
    rig.clock.advance(5 * SECOND - 1)
    assert mailbox.promote() == now(rig) + 1
    assert mailbox.take() is None
    rig.clock.advance(1)
    assert mailbox.promote() is None
    assert mailbox.take().payload == "later"


def test_promote_answers_none_when_nothing_is_delayed(mailbox):
    assert mailbox.promote() is None


def test_what_is_due_enters_in_the_order_of_its_times(rig, mailbox, drain):
    for delay in (3, 1, 2, 1):
        rig.publish_nowait("jobs", delay, delay=delay)
    rig.clock.advance(5 * SECOND)
    assert mailbox.promote() is None
    assert drain(mailbox) == [1, 1, 2, 3]


def test_promote_moves_only_what_is_due(rig, mailbox, drain):
    for delay in (1, 2, 3):
        rig.publish_nowait("jobs", delay, delay=delay)
    rig.clock.advance(2 * SECOND)
    assert mailbox.promote() == now(rig) + SECOND
    assert drain(mailbox) == [1, 2]
    assert mailbox.stats().delayed == 1


def test_the_settler_is_told_only_when_the_earliest_time_changes(rig, mailbox):
    for delay in (5, 7, 3, 3, 4, 1):
        rig.publish_nowait("jobs", delay, delay=delay)
    start = now(rig)
    assert mailbox.settler.due_times == [start + delay * SECOND for delay in (5, 3, 1)]


def test_after_promote_only_an_earlier_time_than_it_answered_is_told(rig, mailbox):
    start = now(rig)
    rig.publish_nowait("jobs", None, delay=1)
    rig.publish_nowait("jobs", None, delay=5)
    rig.clock.advance(SECOND)
    assert mailbox.promote() == start + 5 * SECOND
    rig.publish_nowait("jobs", None, delay=9)
    rig.publish_nowait("jobs", None, delay=2)
    assert mailbox.settler.due_times == [start + SECOND, start + 3 * SECOND]


def test_a_delayed_retry_is_told_too(rig, mailbox):
    rig.publish_nowait("jobs", None)
    mailbox.retry(mailbox.take(), 700)
    assert mailbox.settler.due_times == [now(rig) + 700]
    assert mailbox.stats().delayed == 1
    rig.clock.advance(700)
    mailbox.promote()
    assert mailbox.take().attempt == 2


@pytest.mark.parametrize("delay", [0, -1])
def test_a_delay_that_is_over_is_none(rig, mailbox, delay):
    rig.publish_nowait("jobs", "now", delay=delay)
    assert mailbox.take().payload == "now"
    assert mailbox.settler.due_times == []


def test_a_delay_does_not_follow_the_wall_clock(rig, mailbox):
    rig.publish_nowait("jobs", None, delay=5)
    rig.clock.jump(100 * SECOND)
    assert mailbox.promote() == now(rig) + 5 * SECOND
    assert mailbox.take() is None


def test_not_before_is_a_time_of_the_wall_clock(rig, mailbox):
    rig.publish_nowait("jobs", "later", not_before=rig.clock.time_ns() / SECOND + 5)
    assert mailbox.take() is None
    for _ in range(2):
        assert now(rig) < mailbox.promote() <= now(rig) + 5 * SECOND
        rig.clock.advance(2 * SECOND)
    rig.clock.advance(1 * SECOND)
    mailbox.promote()
    assert mailbox.take().payload == "later"


def test_not_before_follows_the_wall_clock_when_it_jumps(rig, mailbox):
    rig.publish_nowait("jobs", "later", not_before=rig.clock.time_ns() / SECOND + 1000)
    rig.clock.jump(-1000 * SECOND)
    rig.clock.advance(1500 * SECOND)
    assert mailbox.promote() is not None
    assert mailbox.take() is None
    rig.clock.jump(500 * SECOND)
    assert mailbox.promote() is None
    assert mailbox.take().payload == "later"


def test_not_before_a_time_that_is_over_is_now(rig, mailbox):
    rig.publish_nowait("jobs", "now", not_before=1.0)
    assert mailbox.take().payload == "now"


def test_with_delay_and_not_before_the_later_one_counts(rig, mailbox):
    wall = rig.clock.time_ns() / SECOND
    rig.publish_nowait("jobs", "delay", delay=10, not_before=wall + 5)
    rig.publish_nowait("jobs", "not before", delay=5, not_before=wall + 10)
    rig.clock.advance(9 * SECOND)
    mailbox.promote()
    assert mailbox.take() is None
    rig.clock.advance(SECOND)
    mailbox.promote()
    assert {mailbox.take().payload, mailbox.take().payload} == {"delay", "not before"}


@pytest.mark.parametrize("option", ["ttl", "delay", "not_before"])
def test_times_are_finite(rig, mailbox, option):
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match=option):
            rig.publish_nowait("jobs", None, **{option: value})
    assert mailbox.depth() == 0


def test_an_expired_message_is_not_handled_and_gives_its_slot_back(rig):
    mailbox = rig.mailbox("jobs", capacity=2, overflow="reject")
    rig.publish_nowait("jobs", "short", ttl=5)
    rig.publish_nowait("jobs", "long", ttl=10)
    rig.clock.advance(5 * SECOND)
    assert mailbox.take().payload == "long"
    [expired] = mailbox.settler.expired_messages
    assert (expired.payload, expired.expires_at_ns) == ("short", rig.clock.time_ns())
    assert (mailbox.stats().expired, mailbox.stats().delivered) == (1, 1)
    rig.publish_nowait("jobs", "there is room again")


def test_the_settler_can_use_the_mailbox_while_it_is_told_of_an_expiry(rig, mailbox):
    seen = []
    mailbox.settler.expired = lambda message: seen.append((message.payload, mailbox.depth(), mailbox.stats().in_flight))
    rig.publish_nowait("jobs", "gone", ttl=1)
    rig.clock.advance(SECOND)
    assert mailbox.take() is None
    assert seen == [("gone", 0, 0)]


def test_a_message_without_expiry_never_expires(rig, mailbox):
    rig.publish_nowait("jobs", "forever")
    rig.clock.advance(10**18)
    assert mailbox.take().payload == "forever"


def test_expiry_follows_the_wall_clock(rig, mailbox):
    rig.publish_nowait("jobs", "x", ttl=10)
    rig.clock.jump(10 * SECOND)
    assert mailbox.take() is None
    assert mailbox.stats().expired == 1


def test_a_delayed_message_can_expire(rig, mailbox):
    rig.publish_nowait("jobs", "x", ttl=1, delay=2)
    rig.clock.advance(2 * SECOND)
    mailbox.promote()
    assert mailbox.take() is None
    assert mailbox.stats().expired == 1


def test_many_expired_messages_are_passed_over_at_once(rig):
    mailbox = rig.mailbox("jobs", capacity=5000)
    for _ in range(3000):
        rig.publish_nowait("jobs", "x", ttl=1)
    rig.publish_nowait("jobs", "alive")
    rig.clock.advance(SECOND)
    assert mailbox.take().payload == "alive"
    assert mailbox.stats().expired == 3000
    assert len(mailbox.settler.expired_messages) == 3000
