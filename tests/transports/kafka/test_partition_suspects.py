"""What was out when its owner vanished: it is suspect, and what it counts."""

from __future__ import annotations

import pytest

from neuralcore.messaging.transport import Outcome
from tests.transports.kafka.fakes import Hands, after, crashed

ACK, NACK, RELEASE, ATTEMPT = Outcome.ACK, Outcome.NACK, Outcome.RELEASE, Outcome.ATTEMPT


def test_what_was_out_when_its_owner_vanished_is_suspect_and_counts_nothing():
    hands = Hands()
    hands.publish("a", "b", "c")
    a, b, _ = hands.take()
    hands.ack(b)
    hands.settle(a, NACK)
    again = crashed(hands)
    again.publish("a", "b", "c", "d")
    assert [(each.envelope.id, each.attempt, each.suspect) for each in again.take()] == [
        ("a", 2, True), ("c", 1, True), ("d", 1, False),
    ]  # fmt: skip


def test_a_stored_attempt_counts_when_its_owner_vanishes():
    hands = crashed_with_one_out()
    for attempt in (1, 2, 3):
        hands.publish("a")
        (a,) = hands.take()
        assert (a.attempt, a.suspect) == (attempt, True)
        assert hands.settle(a, ATTEMPT)
        hands = crashed(hands)


def crashed_with_one_out() -> Hands:
    hands = Hands()
    hands.publish("a")
    hands.take()
    return crashed(hands)


def test_a_stored_attempt_and_its_nack_count_once():
    hands = crashed_with_one_out()
    hands.publish("a")
    (a,) = hands.take()
    hands.settle(a, ATTEMPT)
    hands.settle(a, ATTEMPT)
    hands.settle(a, NACK)
    (a,) = hands.take()
    assert (a.attempt, a.suspect) == (2, False), "it lived through it"
    again = after(hands.partition.give_up(suspects=False), hands)
    again.publish("a")
    assert [(each.attempt, each.suspect) for each in again.take()] == [(2, False)]


def test_a_stored_attempt_that_is_released_counts_nothing():
    hands = crashed_with_one_out()
    hands.publish("a")
    (a,) = hands.take()
    hands.settle(a, ATTEMPT)
    hands.settle(a, RELEASE)
    (a,) = hands.take()
    assert (a.attempt, a.suspect) == (1, True), "but it is a suspect as before"
    again = crashed(hands)
    again.publish("a")
    assert [each.attempt for each in again.take()] == [1]


@pytest.mark.parametrize("stored", [False, True])
def test_a_suspect_that_has_not_begun_does_not_hold_up_a_partition_that_goes(stored):
    hands = crashed_with_one_out()
    hands.publish("a")
    (a,) = hands.take()
    if stored:
        assert hands.settle(a, ATTEMPT)
    hands.partition.closing = True
    assert not hands.settle(a, ATTEMPT)
    assert hands.partition.in_flight == 0
    assert not hands.settle(a, ACK)
    again = after(hands.partition.give_up(suspects=True), hands)
    again.publish("a")
    assert [(each.attempt, each.suspect) for each in again.take()] == [(1, True)]


@pytest.mark.parametrize(("suspects", "attempts"), [(True, [2, 1, 1]), (False, [1, 1, 1])])
def test_who_gives_up_says_whether_what_is_out_is_suspect(suspects, attempts):
    hands = Hands()
    hands.publish("a", "b", "c")
    a, _ = hands.take(2)
    hands.settle(a, ATTEMPT)
    again = after(hands.partition.give_up(suspects=suspects), hands)
    again.publish("a", "b", "c")
    found = again.take()
    assert [each.attempt for each in found] == attempts
    assert [each.suspect for each in found] == [suspects, suspects, False]
