"""What one process does with one partition: handing out, settling, seeking."""

from __future__ import annotations

import pytest

from neuralcore.messaging.transport import Envelope, Outcome
from neuralcore_transports.kafka import partition as module
from neuralcore_transports.kafka.dedup import Seen
from neuralcore_transports.kafka.window import Window
from tests.transports.kafka.fakes import SECOND, FakeRecord, Hands, record_of

ACK, NACK, RELEASE = Outcome.ACK, Outcome.NACK, Outcome.RELEASE


# Handing out


def test_messages_are_handed_out_in_order_and_once():
    hands = Hands()
    hands.publish("a", "b", "c", "d")
    assert hands.ids(2) == ["a", "b"]
    assert hands.ids() == ["c", "d"]
    assert hands.ids() == []
    assert hands.partition.in_flight == len(hands.partition.out) == 4


def test_a_delivery_says_whose_it_is():
    hands = Hands()
    hands.publish("a")
    (delivery,) = hands.take()
    assert (delivery.interest, delivery.attempt, delivery.suspect) == (7, 1, False)
    assert delivery.envelope.id == "a"


def test_nothing_is_handed_out_before_the_broker_knows_that_it_may_be():
    hands = Hands()
    hands.arrive(*(record_of(Envelope(id=id, channel="orders", body=b""), n) for n, id in enumerate("abc")))
    assert hands.ids() == []
    hands.reserve(2)
    assert hands.ids() == ["a", "b"]
    hands.reserve(0)
    assert hands.ids() == []
    hands.reserve(1)
    assert hands.ids() == ["c"]


def test_it_says_how_many_of_what_arrived_wait_no_more():
    hands = Hands()
    hands.publish("a", "a", "b", "c", "d")
    hands.take(2)
    assert hands.taken == [3], "the duplicate too"
    assert hands.partition.buffered == 2
    hands.take(1)
    hands.take(0)
    assert hands.taken == [3, 1]


def test_one_that_is_going_hands_nothing_out_but_takes_settlements():
    hands = Hands()
    hands.publish("a", "b")
    (delivery,) = hands.take(1)
    hands.partition.closing = True
    assert hands.take() == []
    hands.ack(delivery)
    assert hands.window.position == 1


def test_one_that_has_gone_does_neither():
    hands = Hands()
    hands.publish("a", "b")
    (delivery,) = hands.take(1)
    hands.partition.give_up(suspects=True)
    hands.publish("c", first=2)
    assert hands.take() == []
    assert not hands.settle(delivery, ACK)


def test_when_too_many_wait_the_partition_waits_with_them(monkeypatch):
    monkeypatch.setattr(module, "_HELD", 3)
    hands = Hands()
    hands.publish(*"abcdef", key="k")
    hands.publish("g", first=6)
    (a,) = hands.take()
    assert hands.partition.buffered == 3
    hands.ack(a)
    assert hands.ids() == ["b"]
    assert hands.partition.buffered == 2


def test_a_record_that_is_no_message_is_handed_out_like_others():
    hands = Hands()
    hands.arrive(FakeRecord(0, b"x", b"\xff", [("ce_id", b"\xff"), ("ce_ncpriority", b"9" * 30)]))
    hands.reserve()
    (delivery,) = hands.take()
    hands.settle(delivery, NACK)
    hands.ack(*hands.take())
    assert hands.window.position == 1


# Settling


def test_what_is_settled_in_whatever_order_moves_the_position_only_without_gaps():
    hands = Hands()
    hands.publish("a", "b", "c")
    a, b, c = hands.take()
    hands.ack(c, b)
    assert hands.window.position == 0
    hands.ack(a)
    assert hands.window.position == 3
    assert hands.partition.in_flight == 0


@pytest.mark.parametrize("outcome", Outcome)
def test_a_delivery_is_settled_once(outcome):
    hands = Hands()
    hands.publish("a")
    (delivery,) = hands.take()
    hands.ack(delivery)
    assert not hands.settle(delivery, outcome)
    assert hands.partition.in_flight == 0


def test_an_old_delivery_does_not_settle_a_newer_one():
    hands = Hands()
    hands.publish("a")
    (old,) = hands.take()
    hands.settle(old, NACK)
    (new,) = hands.take()
    assert not hands.settle(old, ACK)
    assert hands.window.position == 0
    hands.ack(new)


def test_a_nack_counts_and_a_release_does_not():
    hands = Hands()
    hands.publish("a")
    attempts = []
    for outcome in (NACK, RELEASE, RELEASE, NACK, ACK):
        (delivery,) = hands.take()
        attempts.append(delivery.attempt)
        assert hands.settle(delivery, outcome)
    assert attempts == [1, 2, 2, 2, 3]


def test_a_failed_message_without_a_key_comes_behind_what_was_there():
    hands = Hands()
    hands.publish("a", "b", "c")
    (a,) = hands.take(1)
    hands.settle(a, NACK)
    hands.publish("d", first=3)
    assert hands.ids() == ["b", "c", "a", "d"]


def test_a_released_one_comes_where_it_was():
    hands = Hands()
    hands.publish("a", "b", "c")
    a, b = hands.take(2)
    hands.settle(b, RELEASE)
    hands.settle(a, RELEASE)
    assert hands.ids() == ["a", "b", "c"]


# Duplicates


def test_a_duplicate_is_suppressed_settled_and_counted():
    hands = Hands()
    hands.publish("a", "b", "a", "c")
    found = hands.take()
    assert [each.envelope.id for each in found] == ["a", "b", "c"]
    assert hands.counted == ["duplicates_suppressed"]
    hands.ack(*found)
    assert hands.window.position == 4


def test_a_retry_and_a_replay_are_no_duplicates():
    hands = Hands()
    hands.publish("a")
    (a,) = hands.take()
    hands.settle(a, NACK)
    hands.arrive(record_of(Envelope(id="a", channel="orders", body=b"", replay=1), 1))
    hands.reserve()
    assert hands.ids() == ["a", "a"]


def test_after_the_window_a_message_is_a_new_one():
    hands = Hands(seen=Seen(60 * SECOND, 100))
    hands.publish("a")
    hands.ack(*hands.take())
    hands.clock.advance(61 * SECOND)
    hands.publish("a", first=1)
    assert hands.ids() == ["a"]


# Seeking


def test_seeking_takes_everything_back_and_goes_on_elsewhere():
    hands = Hands()
    hands.publish("a", "b", "c", "d")
    a, b = hands.take(2)
    hands.settle(b, NACK, delay_ns=SECOND)
    (c,) = hands.take(1)
    assert hands.partition.seek(Window(1, epoch=9)) == [a, c]
    assert hands.partition.in_flight == 0
    assert (hands.partition.due, hands.partition.buffered, hands.partition.out) == (None, 0, [])
    assert not hands.settle(a, ACK)
    hands.publish("b", "c", "d", first=1)
    assert [(each.envelope.id, each.attempt) for each in hands.take()] == [("b", 1), ("c", 1), ("d", 1)]
