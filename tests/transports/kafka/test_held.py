"""What waits for its time or its key is bounded by its size, and whatever is beyond that comes all the same."""

from __future__ import annotations

import random
from secrets import token_hex
from typing import Any

import pytest

from neuralcore import MessageBus
from neuralcore.messaging.transport import Envelope, Outcome
from neuralcore_transports.kafka import partition as module
from neuralcore_transports.kafka.window import Window
from tests.transports.clients import eventually
from tests.transports.kafka.fakes import NOW_NS, Hands, record_of

WAIT = 20.0
SECOND = 10**9


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HELD_BYTES", 1000)


def publish(hands: Hands, *sizes: int, first: int = 0, after: float = 0.0, key: str | None = None) -> None:
    """With a delay, if they come ``after`` so many seconds."""
    not_before = NOW_NS + round(after * SECOND) if after else None
    hands.arrive(
        *(
            record_of(
                Envelope(id=str(at), channel="orders", body=b"x" * size, key=key, not_before_ns=not_before), at, NOW_NS
            )
            for at, size in enumerate(sizes, first)
        )
    )
    hands.reserve()


def test_when_those_that_are_delayed_are_big_the_partition_waits_with_them() -> None:
    hands = Hands()
    publish(hands, *[400] * 5, after=2)
    publish(hands, 1, first=5)
    assert hands.ids() == []
    assert hands.partition.buffered == 3
    assert sum(hands.taken) == 3, "the reader hears of those alone, and reads no more"
    hands.clock.advance(2 * SECOND)
    assert hands.ids() == [str(n) for n in range(6)]
    assert hands.partition.buffered == 0


def test_when_those_that_wait_for_a_key_are_big_the_partition_waits_with_them() -> None:
    hands = Hands()
    publish(hands, *[400] * 6, key="k")
    (first,) = hands.take()
    assert hands.partition.buffered == 2
    hands.ack(first)
    assert hands.ids() == ["1"]
    assert hands.partition.buffered == 1


def test_one_that_is_bigger_than_all_that_may_wait_waits_alone() -> None:
    hands = Hands()
    publish(hands, 5000, 5000, after=1)
    publish(hands, 1, first=2)
    assert hands.ids() == []
    assert hands.partition.buffered == 2
    hands.clock.advance(SECOND)
    assert hands.ids() == ["0", "1", "2"]


def test_retries_count_as_long_as_they_wait() -> None:
    hands = Hands()
    publish(hands, *[600] * 4)
    for delivery in hands.take(2):
        hands.settle(delivery, Outcome.NACK, delay_ns=SECOND)
    assert hands.ids() == []
    hands.clock.advance(SECOND)
    assert hands.ids() == ["2", "3", "0", "1"], "a retry comes behind what was there"


def test_a_next_owner_does_not_have_them_all_in_memory_either() -> None:
    """Though a commit says something of what is behind them."""
    hands = Hands(Window.restored(0, Hands(settled_far_behind()).window.commit(clean=True).metadata))
    publish(hands, *[400] * 90, after=2)
    assert hands.ids() == []
    assert hands.partition.buffered == 87


def settled_far_behind() -> Window:
    window = Window(0)
    window.see(99)
    window.settle(99)
    return window


@pytest.mark.parametrize("seed", range(30))
def test_everything_comes_once_whatever_waits_for_what(seed: int) -> None:
    chance = random.Random(seed)
    hands = Hands()
    for at in range(150):
        after = chance.choice((0.0, 0.0, 1.0, 5.0))
        publish(hands, chance.choice((1, 200, 3000)), first=at, after=after, key=chance.choice((None, "a", "b")))
    done: list[str] = []
    for _ in range(5000):
        for delivery in hands.take(chance.randint(1, 4)):
            if chance.random() < 0.3:
                hands.settle(delivery, chance.choice((Outcome.NACK, Outcome.RELEASE)), delay_ns=SECOND)
            else:
                hands.ack(delivery)
                done.append(delivery.envelope.id)
        assert hands.partition._held <= 1000 + 3000 + 4 * 3000, "those that are in hands may all have to wait"
        hands.reserve()
        hands.clock.advance(SECOND // 10)
        if len(done) == 150:
            break
    assert sorted(map(int, done)) == list(range(150))
    assert hands.partition._held == 0


@pytest.mark.timeout(90)
async def test_on_a_broker_big_ones_that_are_delayed_all_come(kafka_broker: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "_HELD_BYTES", 2_000_000)
    most = 0
    got: list[int] = []
    async with MessageBus(f"kafka://{kafka_broker.bootstrap}/h{token_hex(4)}?lease=6&partitions=1") as bus:

        def take(payload: bytes) -> None:
            got.append(payload[0])

        await bus.subscribe("orders", take, group="g").ready()
        (member,) = bus._link.transport.members
        for number in range(30):
            await bus.publish("orders", bytes([number]) * 900_000, delay=2.0)
            most = max(most, *(partition._held for partition in member.owned))
        await eventually(lambda: len(got) == 30, "all of them", WAIT)
        assert got == list(range(30))
        assert 0 < most <= 2_000_000 + 900_000
