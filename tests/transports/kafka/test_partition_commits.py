"""What the next commit of a partition says, when it is wanted, and how much fits into it."""

from __future__ import annotations

from neuralcore.messaging.transport import Envelope
from neuralcore_transports.kafka.window import Window
from tests.transports.kafka.fakes import SECOND, Hands, record_of

# When it is wanted


def test_a_commit_is_wanted_when_there_is_demand_and_nothing_may_be_handed_out():
    hands = Hands()
    now = hands.clock.monotonic_ns()
    assert not hands.partition.wants_commit(now)
    hands.arrive(record_of(Envelope(id="a", channel="orders", body=b""), 0))
    assert hands.partition.wants_commit(now)
    hands.partition.demanded = 0
    assert not hands.partition.wants_commit(now)


def test_and_when_something_was_settled():
    hands = Hands()
    hands.publish("a")
    (a,) = hands.take()
    hands.reserve(0)
    assert not hands.partition.wants_commit(hands.clock.monotonic_ns())
    hands.ack(a)
    assert hands.partition.wants_commit(hands.clock.monotonic_ns())


def test_and_when_less_will_be_handed_out_than_was_said():
    hands = Hands()
    hands.publish("a")
    hands.take()
    assert hands.window.reserved - hands.window.next > 0
    hands.clock.advance(SECOND)
    assert hands.partition.wants_commit(hands.clock.monotonic_ns())
    assert hands.partition.ahead == 0


def test_not_more_is_said_than_there_is_demand_for():
    hands = Hands()
    hands.publish(*(str(n) for n in range(50)))
    hands.partition.demanded = 5
    assert hands.partition.ahead == 5
    hands.partition.demanded = 10**6
    assert hands.partition.ahead == 50


# Room in it


def filled(limit: int) -> Hands:
    """The first is out, and of what follows as much is settled, every second one, as a commit remembers."""
    hands = Hands(Window(0, limit=limit))
    hands.publish(*(str(n) for n in range(limit)))
    hands.partition.demanded = 10
    while not hands.window.full:
        _, settled = hands.take(2)
        hands.ack(settled)
    return hands


def test_when_a_commit_would_not_hold_more_the_partition_waits():
    hands = filled(200)
    assert hands.partition.buffered
    assert hands.take() == []
    hands.ack(*hands.partition.out)
    assert len(hands.take()) == hands.partition.in_flight > 0


def test_and_its_next_owner_goes_on_all_the_same():
    hands = filled(200)
    commit = hands.partition.give_up(suspects=True)
    again = Hands(Window.restored(commit.offset, commit.metadata, limit=200), clock=hands.clock)
    again.publish(*(str(n) for n in range(200)))
    assert again.ids(1) == ["0"]


# Offsets that hold no message


def test_what_is_behind_a_transactions_mark_is_reserved_as_messages_are() -> None:
    """A commit that makes room for one message makes it for the next one that there is."""
    hands = Hands()
    hands.arrive(*(record_of(Envelope(id=id, channel="orders", body=b""), at) for id, at in (("a", 0), ("b", 40))))
    hands.reserve(1)
    assert hands.ids() == ["a"]
    assert hands.partition.wants_commit(hands.clock.monotonic_ns())
    hands.reserve(1)
    assert hands.ids() == ["b"]


def test_the_end_of_the_partition_passes_what_is_nobodys() -> None:
    hands = Hands()
    hands.publish("a")
    hands.ack(*hands.take())
    assert hands.partition.ended(3)
    assert hands.window.position == 3
    assert not hands.partition.ended(3), "it is no news"


def test_it_is_passed_after_what_came_before() -> None:
    hands = Hands()
    hands.publish("a", "b")
    assert not hands.partition.ended(3)
    a, b = hands.take()
    hands.ack(b)
    assert hands.window.position == 0
    hands.ack(a)
    assert hands.window.position == 3
