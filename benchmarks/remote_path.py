"""What does the path of remote transports cost when the store itself is nearly free: the floor for every store?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from benchmarks._bus import CHANNEL, bus_arm
from benchmarks._cli import main
from benchmarks._harness import Arm, Benchmark, Metrics, Watch
from benchmarks._peers import queue_arm
from benchmarks._sink import Sink
from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.transport import (
    Capabilities,
    CommitResult,
    Consumer,
    Delivery,
    Demand,
    Envelope,
    Group,
    Interest,
    Runtime,
    Settlement,
    SettleStatus,
    Transport,
)
from neuralcore.testing.memory import MemoryStore, MemoryTransport

__all__ = ["BENCHMARKS"]

CAPACITY = 1_000
PUBLISHERS = 100
BATCH = 100

Fill = Callable[[MessageBus, int], Awaitable[None]]


async def _one_by_one(bus: MessageBus, n: int) -> None:
    for i in range(n):
        await bus.publish(CHANNEL, {"i": i})


async def _at_once(bus: MessageBus, n: int) -> None:
    """Many tasks publish at the same time, so that their publishes can share commits."""
    share = n // PUBLISHERS

    async def publisher(first: int) -> None:
        for i in range(first, first + share):
            await bus.publish(CHANNEL, {"i": i})

    await asyncio.gather(*[publisher(k * share) for k in range(PUBLISHERS)])


async def _in_batches(bus: MessageBus, n: int) -> None:
    for start in range(0, n, BATCH):
        await bus.publish_many([(CHANNEL, {"i": i}) for i in range(start, min(n, start + BATCH))])


def _memory(name: str, fill: Fill, producers: int = 1) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        async with MessageBus(MemoryTransport(MemoryStore())) as bus:
            subscribed = bus.subscribe(CHANNEL, sink.awaited(), group="bench", capacity=CAPACITY)
            await subscribed.ready()
            with (watch := Watch()):
                await fill(bus, n)
                await _settled(bus, n)
        return watch.per(n)

    return Arm(name=name, run=run, producers=producers)


class _Free(Transport, Consumer):
    """A backlog that costs nothing to read and to settle: what is left is the core's."""

    scheme = "free"
    capabilities = Capabilities(groups=True)

    def __init__(self, n: int) -> None:
        self._left = [Envelope(id=f"{i:032x}", channel=CHANNEL, body=b'{"i":%d}' % i) for i in reversed(range(n))]
        self._interest = 0

    async def open(self, runtime: Runtime) -> None: ...
    async def close(self) -> None: ...

    async def consume(self, group: Group) -> Consumer:
        return self

    async def update(self, interests: Sequence[Interest]) -> None:
        self._interest = interests[0].id if interests else 0

    async def fetch(self, demand: Mapping[int, Demand], timeout: float) -> Sequence[Delivery]:
        count = min(demand[self._interest].limit, len(self._left))
        if not count:
            await asyncio.sleep(timeout)
        return [Delivery(envelope=self._left.pop(), interest=self._interest) for _ in range(count)]

    async def commit(self, publishes: Sequence[Envelope], settlements: Sequence[Settlement] = ()) -> CommitResult:
        return CommitResult((), [SettleStatus.SETTLED] * len(settlements))


def _free() -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        async with MessageBus(_Free(n)) as bus:
            with (watch := Watch()):
                bus.subscribe(CHANNEL, sink.awaited(), group="bench", capacity=CAPACITY)
                await _settled(bus, n)
        return watch.per(n)

    return Arm(name="a backlog that costs nothing", run=run)


async def _settled(bus: MessageBus, n: int) -> None:
    while sum(subscription.acked for subscription in bus.metrics().subscriptions) < n:  # noqa: ASYNC110
        await asyncio.sleep(0)


BENCHMARKS = (
    Benchmark(
        name="remote path",
        question=__doc__,
        arms=(
            _memory("memory, one by one", _one_by_one),
            _memory(f"memory, {PUBLISHERS} publishers", _at_once, PUBLISHERS),
            _memory(f"memory, publish_many of {BATCH}", _in_batches),
            _free(),
            bus_arm(CAPACITY, name="native", group="bench"),
            queue_arm(CAPACITY),
        ),
        messages=5_000,
    ),
)

if __name__ == "__main__":
    main(BENCHMARKS)
