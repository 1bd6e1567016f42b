"""Retries and delayed messages of a partition wait their time, whatever the clocks say."""

from __future__ import annotations

import pytest

from neuralcore.messaging.transport import Envelope, Outcome
from tests.transports.kafka.fakes import SECOND, Hands, after, record_of

NACK = Outcome.NACK


def test_a_retry_waits_its_time_on_a_clock_that_does_not_jump():
    hands = Hands()
    hands.publish("a")
    (a,) = hands.take()
    hands.settle(a, NACK, delay_ns=5 * SECOND)
    hands.clock.jump(3600 * SECOND)
    assert hands.ids() == []
    assert hands.partition.due == hands.clock.monotonic_ns() + 5 * SECOND
    hands.clock.advance(5 * SECOND)
    assert hands.ids() == ["a"]
    assert hands.partition.due is None


def test_a_message_may_be_published_with_a_delay():
    hands = Hands()
    late = Envelope(id="a", channel="orders", body=b"", key="k", delay_ns=2 * SECOND)
    hands.arrive(record_of(late, 0), record_of(Envelope(id="b", channel="orders", body=b"", key="k"), 1))
    hands.reserve()
    (b,) = hands.take()
    assert b.envelope.id == "b", "nobody waits for it"
    hands.clock.advance(2 * SECOND)
    assert hands.ids() == [], "it waits for its key"
    hands.ack(b)
    assert hands.ids() == ["a"]


@pytest.mark.parametrize("hours", [-2, 0, 2])
def test_a_retry_that_is_taken_over_waits_at_most_its_time_whatever_the_next_clock_says(hours):
    hands = Hands()
    hands.publish("a")
    (a,) = hands.take()
    hands.settle(a, NACK, delay_ns=5 * SECOND)
    again = after(hands.partition.give_up(suspects=False), hands, jump=hours)
    again.publish("a")
    assert again.ids() == (["a"] if hours > 0 else [])
    again.clock.advance(5 * SECOND)
    assert again.ids() == ([] if hours > 0 else ["a"])


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_delay_is_at_most_itself_whatever_the_next_clock_says(hours):
    hands = Hands()
    late = record_of(Envelope(id="a", channel="orders", body=b"", delay_ns=5 * SECOND), 0)
    hands.arrive(late)
    hands.reserve()
    assert hands.ids() == []
    again = after(hands.partition.give_up(suspects=False), hands, jump=hours)
    again.arrive(late)
    again.reserve()
    assert again.ids() == (["a"] if hours > 0 else [])
    again.clock.advance(5 * SECOND)
    assert again.ids() == ([] if hours > 0 else ["a"])
