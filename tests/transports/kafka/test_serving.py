"""Which interest a channel answers, and how partitions share a demand."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralcore.messaging.names import matches
from neuralcore.messaging.transport import Delivery, Demand, Interest, Outcome
from neuralcore_transports.kafka.registry import Channel
from neuralcore_transports.kafka.serving import _TURN, Answering, Serving
from tests.transports.kafka.fakes import Hands, a_clock

SECOND = 10**9
BANDS = {"orders": (0, 50, 100), "jobs": ()}
ORDERS = {"orders": 7}


def interests(*patterns: str) -> list[Interest]:
    return [Interest(id=id, pattern=pattern) for id, pattern in enumerate(patterns)]


@pytest.mark.parametrize(
    ("channel", "pattern"),
    [("a.b", "a.b"), ("a.c", "a.*"), ("x.b", "*.b"), ("a.b.c", "a.>"), ("x", ">"), ("x.y", ">"), ("_dlq.a", None)],
)
def test_a_channel_answers_the_most_specific_interest(channel, pattern):
    given = interests(">", "a.>", "*.b", "a.*", "a.b")
    found = Answering(given)(channel)
    assert (None if found is None else found.pattern) == pattern


@given(
    st.permutations([">", "*", "a.>", "a.*", "*.b", "a.b", "_dlq.*"]), st.sampled_from(["a", "a.b", "_dlq.a", "b.b"])
)
def test_whatever_order_they_came_in(patterns, channel):
    found, usual = Answering(interests(*patterns))(channel), Answering(interests(*sorted(patterns)))(channel)
    assert (found and found.pattern) == (usual and usual.pattern)
    assert (found is None) == (not any(matches(pattern, channel) for pattern in patterns))


def holding(count: int, *, band: int = 0, number: int = 0, channel: str = "orders", clock=None) -> Hands:
    below = Channel(channel, 1, BANDS.get(channel, ())).below(band)
    hands = Hands(channel=channel, band=band, below=below, number=number, clock=clock)
    hands.publish(*(f"{channel}.{band}.{number}.{n}" for n in range(count)))
    return hands


def serving(*given: Hands) -> Serving:
    made = Serving()
    for hands in given:
        made.ready(hands.partition)
    return made


def take(
    made: Serving, limit: int, *, more_urgent_than: int | None = None, answers=ORDERS, now: int = 0
) -> list[Delivery]:
    demand = {id: Demand(limit, more_urgent_than) for id in set(answers.values())}
    return made.take(demand, answers, now)


def whose(found: list[Delivery]) -> Counter[int]:
    return Counter(delivery.lease.partition.key[1] for delivery in found)


def bands(found: list[Delivery]) -> list[int]:
    return [delivery.lease.partition.band for delivery in found]


def test_not_more_is_taken_than_demanded():
    made = serving(holding(50), holding(50, number=1))
    assert len(take(made, 7)) == 7
    assert take(made, 0) == []
    assert len(take(made, 1000)) == 93


def test_one_partition_s_backlog_does_not_keep_the_others_waiting():
    made = serving(holding(500), holding(10, number=1), holding(500, number=2))
    assert whose(take(made, 3 * _TURN)) == {0: 2 * _TURN - 10, 1: 10, 2: _TURN}


def test_they_take_turns_from_fetch_to_fetch_too():
    made = serving(*(holding(100, number=number) for number in range(4)))
    found = [number for _ in range(8) for number in whose(take(made, 1))]
    assert sorted(found[:4]) == sorted(found[4:]) == [0, 1, 2, 3]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 70), min_size=1, max_size=4), st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_everything_comes_once_whatever_the_demands(sizes, limits):
    made = serving(*(holding(size, number=number) for number, size in enumerate(sizes)))
    found = [delivery for limit in limits for delivery in take(made, limit)]
    assert len(found) == min(sum(sizes), sum(limits))
    assert len({delivery.envelope.id for delivery in found}) == len(found)
    assert len(take(made, 1000)) == sum(sizes) - len(found)


def test_the_most_urgent_band_comes_first_whatever_came_first():
    made = serving(holding(40, band=2), holding(40, band=1, number=1), holding(3, band=0, number=2))
    assert bands(take(made, 50)) == [0] * 3 + [1] * 40 + [2] * 7


def test_only_bands_that_are_more_urgent_altogether_may_be_asked_for():
    def found(rank: int | None) -> set[int]:
        return set(bands(take(serving(*(holding(2, band=band) for band in range(3))), 9, more_urgent_than=rank)))

    assert found(None) == {0, 1, 2}
    assert found(255) == found(100) == {0, 1}
    assert found(99) == found(50) == {0}
    assert found(49) == found(0) == set()


def test_what_was_not_urgent_enough_is_there_the_next_time():
    made = serving(holding(2, band=1))
    assert take(made, 9, more_urgent_than=50) == []
    assert len(take(made, 9)) == 2


def test_a_channel_without_bands_has_nothing_urgent():
    made = serving(holding(2, channel="jobs"))
    assert take(made, 9, more_urgent_than=200, answers={"jobs": 7}) == []


def test_every_interest_has_its_own_demand():
    made = serving(holding(9), holding(9, channel="jobs", number=1))
    demand = {7: Demand(2), 8: Demand(5)}
    assert whose(made.take(demand, {"orders": 7, "jobs": 8}, 0)) == {0: 2, 1: 5}


def test_nothing_is_taken_for_who_did_not_ask():
    made = serving(holding(2))
    assert made.take({7: Demand(9)}, {}, 0) == []
    assert made.take({8: Demand(9)}, ORDERS, 0) == []
    assert len(take(made, 9)) == 2


def test_it_says_when_something_that_waits_is_ready():
    clock = a_clock()
    hands = holding(1, clock=clock)
    made = serving(hands)
    (delivery,) = take(made, 9)
    assert made.due is None
    hands.settle(delivery, Outcome.NACK, delay_ns=SECOND)
    made.ready(hands.partition)
    assert take(made, 9) == []
    assert made.due == SECOND
    assert take(made, 9, now=SECOND - 1) == []
    assert len(take(made, 9, now=SECOND)) == 1
    assert made.due is None


def test_one_that_has_gone_is_not_asked():
    gone = holding(5)
    made = serving(gone, holding(5, number=1))
    made.remove(gone.partition)
    assert whose(take(made, 99)) == {1: 5}


def test_one_that_waits_for_its_commit_is_not_forgotten_while_another_fills_the_demand():
    """As a member does it: after a fetch those that were asked, and want a commit, have one."""
    busy, waiting = holding(500), holding(0, number=1)
    made = serving(waiting, busy)
    waiting.window.committed(waiting.window.commit(clean=False, ahead=0))
    waiting.publish("late", first=0)
    waiting.reserve(0)
    found: list[Delivery] = []
    for _ in range(20):
        found += take(made, 10)
        for partition in made.asked:
            if partition.wants_commit(0):
                partition.window.committed(partition.window.commit(clean=False, ahead=partition.ahead))
                if partition.buffered:
                    made.ready(partition)
    assert whose(found)[1] == 1
