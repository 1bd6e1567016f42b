"""Bands of priorities: of what waits the more urgent comes first, whatever failed and whoever has the partitions."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from neuralcore import MessageBus, Priority, RetryPolicy
from neuralcore_transports.kafka.topics import band_of
from tests.transports.clients import eventually
from tests.transports.programs import program

pytestmark = pytest.mark.timeout(90)

WAIT = 10.0
BANDS = (0, 50, 100)
NAMED = [int(priority) for priority in Priority]
AHEAD = 1
"""With capacity=1 it is what the handler has."""


@pytest.fixture
def url(url_with):
    return url_with("lease=6&partitions=1")


def band(payload):
    return band_of(BANDS, payload[0])


class Handler:
    """Waits at its gate, and keeps what it got."""

    def __init__(self, fails=lambda message: False):
        self.gate = asyncio.Event()
        self.waiting = False
        self.fails = fails
        self.got = []
        self.times = []

    async def __call__(self, message):
        self.waiting = True
        await self.gate.wait()
        self.got.append(tuple(message.payload))
        self.times.append(time.monotonic())
        if self.fails(message):
            raise RuntimeError("on purpose")

    async def all(self, count):
        await eventually(lambda: len(self.got) >= count, f"{count} messages", WAIT)


async def listening(bus, handle, **subscription):
    bus.create_channel("orders", bands=BANDS)
    await bus.subscribe("orders", handle, group="g", capacity=1, **subscription).ready()
    return handle


async def publish(bus, priorities):
    await bus.publish_many([("orders", (rank, n), None, {"priority": rank}) for n, rank in enumerate(priorities)])


async def read(bus, count):
    """So many are in this process, and all but those ahead wait for a handler."""

    def partitions():
        return [partition for member in bus._link.transport.members for partition in member.owned]

    def in_flight():
        return sum(partition.in_flight for partition in partitions())

    def all_read():
        return in_flight() >= AHEAD and sum(each.buffered for each in partitions()) + in_flight() >= count

    await eventually(all_read, f"{count} messages in memory", WAIT)
    assert in_flight() == AHEAD, in_flight()


def in_order(got):
    """By band, and inside a band as they were published."""
    return sorted(got, key=lambda payload: (band(payload), payload[1]))


async def test_the_more_urgent_come_first_in_the_order_of_publishing(url):
    ranks = random.Random(7).choices(NAMED, k=60)
    async with MessageBus(url) as bus:
        handle = await listening(bus, Handler())
        await publish(bus, ranks)
        await read(bus, len(ranks))
        handle.gate.set()
        await handle.all(len(ranks))
    assert sorted(payload[1] for payload in handle.got) == list(range(len(ranks)))
    assert handle.got[AHEAD:] == in_order(handle.got[AHEAD:])


async def test_one_that_is_published_later_overtakes_what_waits(url):
    async with MessageBus(url) as bus:
        handle = await listening(bus, Handler())
        await publish(bus, [Priority.BACKGROUND] * 20 + [Priority.NORMAL] * 20)
        await read(bus, 40)
        await bus.publish("orders", (0, 40), priority=Priority.CRITICAL)
        await read(bus, 41)
        handle.gate.set()
        await handle.all(41)
    assert handle.got[AHEAD] == (0, 40)
    assert handle.got[AHEAD:] == in_order(handle.got[AHEAD:])


async def test_what_has_failed_waits_behind_what_is_more_urgent(url):
    """And behind its equals."""
    failing = {(50, 99), (0, 21)}
    policy = RetryPolicy(base=0.0, jitter=False)
    async with MessageBus(url) as bus:
        fails = Handler(lambda message: message.attempt == 1 and tuple(message.payload) in failing)
        handle = await listening(bus, fails, retry=policy)
        await bus.publish("orders", (50, 99), priority=Priority.NORMAL)
        await eventually(lambda: handle.waiting, "the first in its handler", WAIT)
        await publish(bus, [50] * 20 + [0] * 20)
        await read(bus, 41)
        handle.gate.set()
        await handle.all(43)
    order = [payload[1] for payload in handle.got]
    assert order == [99, *range(20, 40), 21, *range(20), 99]


async def test_a_retry_whose_time_has_come_overtakes_what_is_less_urgent(url):
    policy = RetryPolicy(base=0.3, factor=1.0, jitter=False)
    async with MessageBus(url) as bus:
        bus.create_channel("orders", bands=BANDS)
        handle = Handler(lambda message: message.attempt == 1 and band(message.payload) == 0)

        async def work(message):
            await asyncio.sleep(0.02)
            await handle(message)

        await bus.subscribe("orders", work, group="g", capacity=1, retry=policy).ready()
        await publish(bus, [0] * 3 + [50] * 80)
        await read(bus, 83)
        handle.gate.set()
        await handle.all(86)
    for urgent in ((0, 0), (0, 1), (0, 2)):
        first, second = (index for index, payload in enumerate(handle.got) if payload == urgent)
        due = handle.times[first] + policy.base + 0.1
        late = [
            payload for payload, at in zip(handle.got, handle.times, strict=True) if due < at < handle.times[second]
        ]
        assert len([payload for payload in late if band(payload)]) <= AHEAD, (urgent, late)
        assert second < 85, "ordinary ones were left"


OWNER = """
async def main():
    async with MessageBus(url) as bus:
        bus.create_channel("orders", bands=(0, 50, 100))

        async def hold(message):
            print("begun", flush=True)
            await asyncio.Event().wait()

        bus.subscribe("orders", hold, group="g", capacity=1)
        while True:
            owned = [partition for member in bus._link.transport.members for partition in member.owned]
            print("has", sum(each.buffered + each.in_flight for each in owned), flush=True)
            await asyncio.sleep(0.01)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["leaves", "is killed"])
async def test_also_after_a_takeover(url, how):
    ranks = random.Random(8).choices(NAMED, k=60)
    async with MessageBus(url) as bus:
        bus.create_channel("orders", bands=BANDS)
        if how == "leaves":
            async with MessageBus(url) as other:
                await listening(other, Handler())
                await publish(bus, ranks)
                await read(other, len(ranks))
                await other.close(drain=False, timeout=0.5)
        else:
            with program(url, OWNER) as other:
                await publish(bus, [Priority.NORMAL])
                await asyncio.to_thread(other.expect, "begun")
                await publish(bus, ranks)
                await asyncio.to_thread(other.expect, f"has {len(ranks) + 1}")
                other.kill()
        handle = Handler()
        bus.subscribe("orders", handle, group="g", capacity=1)
        waiting = len(ranks) if how == "leaves" else len(ranks) + 1
        await read(bus, waiting)
        handle.gate.set()
        await handle.all(waiting)
    assert len(handle.got) == waiting
    order = [payload for payload in handle.got[AHEAD:] if payload != (50, 0)]
    assert [band(payload) for payload in order] == sorted(map(band, order))
