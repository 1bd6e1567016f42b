"""Messages of one key in a partition: one at a time, held in place when they fail, or passed."""

from __future__ import annotations

from neuralcore.messaging.transport import Outcome
from neuralcore_transports.kafka.window import Window
from tests.transports.kafka.fakes import SECOND, Hands, crashed

NACK, RELEASE = Outcome.NACK, Outcome.RELEASE


def test_messages_of_one_key_come_one_at_a_time_and_others_pass():
    hands = Hands()
    hands.publish("a", "b", key="k")
    hands.publish("c", first=2)
    a, c = hands.take()
    assert (a.envelope.id, c.envelope.id) == ("a", "c")
    hands.ack(a)
    assert hands.ids() == ["b"]


def test_a_failed_message_is_held_in_place_with_its_key():
    hands = Hands()
    hands.publish("a", "b", key="k")
    (a,) = hands.take()
    hands.settle(a, NACK, delay_ns=SECOND)
    assert hands.ids() == []
    hands.clock.advance(SECOND)
    assert hands.ids() == ["a"]


def test_also_after_a_crash():
    hands = Hands()
    hands.publish("a", "b", key="k")
    (a,) = hands.take()
    hands.settle(a, NACK, delay_ns=5 * SECOND)
    again = crashed(hands)
    again.publish("a", "b", key="k")
    assert again.ids() == []
    again.clock.advance(5 * SECOND)
    (a,) = again.take()
    assert (a.envelope.id, a.attempt) == ("a", 2)


def test_or_its_successors_pass():
    hands = Hands()
    hands.publish("a", "b", "c", key="k")
    (a,) = hands.take()
    hands.settle(a, NACK, pass_key=True)
    order = []
    while found := hands.take():
        (delivery,) = found
        order.append(delivery.envelope.id)
        hands.ack(delivery)
    assert order == ["b", "c", "a"]


def test_a_released_one_of_a_key_comes_before_its_successors():
    hands = Hands()
    hands.publish("a", "b", key="k")
    (a,) = hands.take()
    assert hands.take() == []
    hands.settle(a, RELEASE)
    assert hands.ids() == ["a"]


def test_all_keys_are_free_after_seeking():
    hands = Hands()
    hands.publish("a", "b", key="k")
    hands.take()
    hands.partition.seek(Window(0, epoch=9))
    hands.publish("a", "b", key="k")
    assert hands.ids() == ["a"]
