"""Dead letters on a broker: a group of their own settles them, and what is settled is deleted."""

from __future__ import annotations

import asyncio

import pytest

from neuralcore import MessageBus, RetryPolicy
from tests.transports.clients import eventually

pytestmark = pytest.mark.timeout(90)

WAIT = 20.0
TWICE = RetryPolicy(max_attempts=2, base=0.0, jitter=False)


@pytest.fixture
def url(url_with):
    return url_with("lease=6&partitions=2&upkeep=0.5")


@pytest.fixture
def ends(kafka_broker, prefix):
    """The first offset that is left of a channel's only partition, and the one behind its last."""
    from confluent_kafka import Consumer, TopicPartition

    reader = Consumer(kafka_broker.config(group_id="looking"))
    yield lambda channel: reader.get_watermark_offsets(TopicPartition(f"{prefix}.{channel}", 0), 5)
    reader.close()


class Shop:
    """Its handler fails as long as it is broken."""

    def __init__(self, bus):
        self.bus = bus
        self.broken = True
        self.heard = []

    async def handle(self, message):
        self.heard.append((message.payload, message.attempt))
        if self.broken:
            raise RuntimeError(f"no {message.payload}")

    async def buries(self, *payloads):
        await self.bus.subscribe("orders", self.handle, group="g", retry=TWICE).ready()
        for payload in payloads:
            await self.bus.publish("orders", payload, key=payload)
        await eventually(lambda: self.letters(len(payloads)), "the dead letters", WAIT)

    async def letters(self, count):
        try:
            return len([letter async for letter in self.bus.dead_letters("orders")]) == count
        except KeyError:
            return False


async def test_they_are_replayed_to_the_group_that_gave_up_and_then_deleted(url, ends):
    async with MessageBus(url) as bus:
        shop, others = Shop(bus), []
        await bus.subscribe("orders", others.append, group="others").ready()
        await shop.buries("tea", "cake")
        assert sorted(shop.heard) == [("cake", 1), ("cake", 2), ("tea", 1), ("tea", 2)]
        found = [(letter.payload(), letter.attempts, letter.error) async for letter in bus.dead_letters("orders")]
        assert sorted(found) == [("cake", 2, "no cake"), ("tea", 2, "no tea")]
        shop.broken, shop.heard = False, []
        assert await bus.dead_letters("orders").replay(lambda letter: letter.payload() == "tea") == 1
        await eventually(lambda: shop.heard, "what was replayed", WAIT)
        assert await bus.dead_letters("orders").replay() == 1
        await eventually(lambda: len(shop.heard) == 2, "the other", WAIT)
        assert shop.heard == [("tea", 1), ("cake", 1)]
        assert await bus.dead_letters("orders").replay() == 0
        await eventually(lambda: ends("__dlq.orders") == (2, 2), "no letter", WAIT)
        await eventually(lambda: shop.letters(0), "no letter to be seen", WAIT)
        assert sorted(message.payload for message in others) == ["cake", "tea"], "other groups have had theirs"


async def test_they_are_purged_by_settling_in_their_own_group(url, ends):
    async with MessageBus(url) as bus:
        shop = Shop(bus)
        await shop.buries("tea", "cake", "pie")
        assert ends("__dlq.orders") == (0, 3)
        assert await bus.dead_letters("orders").discard(lambda letter: letter.payload() == "cake") == 1
        assert await bus.dead_letters("orders").discard(limit=1) == 1
        await asyncio.sleep(1.5)
        assert ends("__dlq.orders")[0] < 3, "one is left"
        assert await bus.dead_letters("orders").discard() == 1
        await eventually(lambda: ends("__dlq.orders") == (3, 3), "no letter", WAIT)
    async with MessageBus(url) as bus:
        assert await bus.dead_letters("orders").discard() == 0
        assert [letter async for letter in bus.dead_letters("orders")] == []
