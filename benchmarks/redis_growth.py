"""Does a message cost more beside a million others in Redis, or with a thousand channels? And connections, threads?"""

from __future__ import annotations

import asyncio
import json
import statistics
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter_ns
from typing import Any

from benchmarks._bus import CHANNEL
from benchmarks._cli import main
from benchmarks._durable import GROUP, settled
from benchmarks._harness import Arm, Benchmark, Metrics, Target
from benchmarks._redis import (
    BATCH,
    JSON,
    PATIENCE,
    PLACE,
    Meter,
    Payload,
    Text,
    batches,
    bus_on,
    entry,
    items,
    keep,
    plain_client,
    publish_batches,
    wiped,
)
from benchmarks._redis_server import Server
from benchmarks._sink import Sink
from neuralcore._core import Message
from neuralcore.messaging.bus import MessageBus

__all__ = ["BENCHMARKS"]

SLOWER = round(1 / 1.5, 2)
"""How fast the larger one must at least be, times the smaller one."""
TEXT = Text(200)
FEW = 10_000
FILLED_AT_ONCE = 1_000
CHANNELS = 1_000

Handle = Callable[[Any], object]


class Stored:
    """A server of its own for all rounds, filled at the first: as many messages come as go, so it stays as full."""

    def __init__(self, name: str, backlog: Callable[[], int]) -> None:
        self._name, self._backlog = name, backlog
        self._taken = 0

    async def __call__(self, n: int, sink: Sink) -> Metrics:
        fresh = not PLACE.has_server(self._name)
        server = PLACE.server(self._name)
        if fresh:
            self._taken = 0
            await _fill(server, self._backlog())
        handle, first = TEXT.checked(sink, sink.plain()), self._taken

        def renumbered(payload: Payload) -> None:
            handle({**payload, "i": payload["i"] - first})

        half = n - n // 2
        new = TEXT.payloads(self._backlog() + first, self._backlog() + first + n)
        async with bus_on(server.url, fresh=False) as bus:
            publish, fetch = await _one_by_one(bus, new[:half], renumbered)
            with (meter := Meter(server)):
                await publish_batches(bus, batches(new[half:]))
                await _handled(bus, n - half, renumbered)
        self._taken += n
        return {
            **meter.per(n - half),
            "publish_p50_ns": publish,
            "fetch_p50_ns": fetch,
        }


async def _fill(server: Server, backlog: int) -> None:
    async with bus_on(server.url) as bus:
        for first in range(0, backlog, FILLED_AT_ONCE):
            await bus.publish_many(items(TEXT.payloads(first, min(backlog, first + FILLED_AT_ONCE))))
    server.rewrite()


async def _one_by_one(bus: MessageBus, payloads: Sequence[Payload], handle: Handle) -> tuple[float, float]:
    """Medians of a publish, and of a fetch with its settlement: there is room for one message only."""
    published = await _times(
        [lambda payload=payload: bus.publish(CHANNEL, payload, content_type=JSON) for payload in payloads]
    )
    async with bus.stream(CHANNEL, group=GROUP, capacity=1) as stream:

        async def fetch() -> None:
            message = await anext(stream)
            await message.ack()
            handle(message.payload)

        fetched = await _times([fetch] * len(payloads))
    return statistics.median(published), statistics.median(fetched)


async def _times(calls: Sequence[Callable[[], Awaitable[object]]]) -> list[int]:
    times = []
    for call in calls:
        before = perf_counter_ns()
        await call()
        times.append(perf_counter_ns() - before)
    return times


async def _handled(bus: MessageBus, n: int, handle: Handle) -> None:
    """Exactly n of the backlog: the handler of the one after them does not end, so that it goes back."""
    left, enough = n, asyncio.Event()

    async def handler(message: Message) -> None:
        nonlocal left
        if not left:
            enough.set()
            await asyncio.Event().wait()
        handle(message.payload)
        left -= 1

    subscribed = bus.subscribe(CHANNEL, handler, group=GROUP, capacity=BATCH)
    await asyncio.wait_for(enough.wait(), PATIENCE)
    await subscribed.unsubscribe(drain=False, timeout=PATIENCE)


def _backlogs() -> Benchmark:
    few = Arm(name="bus, 10 thousand", run=Stored("few", lambda: min(FEW, PLACE.backlog)))
    full = Arm(name="bus, a million", run=Stored("full", lambda: PLACE.backlog))
    return Benchmark(
        name="redis growth, backlog",
        question="What does a message cost beside a backlog of ten thousand, and of a million (--backlog)?",
        arms=(full, few),
        messages=2_000,
        check_messages=400,
        targets=tuple(
            Target(
                what=f"{what} with a million, times the speed with 10 thousand",
                subject=full.name,
                peer=few.name,
                metric=metric,
                goal=SLOWER,
            )
            for what, metric in (
                ("all of it in batches", "wall_ns"),
                ("publish p50", "publish_p50_ns"),
                ("fetch p50", "fetch_p50_ns"),
            )
        ),
    )


def _names(channels: int) -> list[str]:
    return [f"{CHANNEL}.{k}" for k in range(channels)]


class _Setting:
    """An empty server, who handles what comes from each name, and what all that takes."""

    def __init__(self, names: Sequence[str], sink: Sink) -> None:
        self.server = wiped()
        self.handlers = {name: TEXT.checked(sink, sink.plain(name)) for name in names}
        self._threads = threading.active_count()

    def counts(self) -> Metrics:
        return {
            "connections": self.server.connections(),
            "threads": threading.active_count() - self._threads,
        }


def _channels(channels: int) -> Arm:
    """Batches whose messages go round the channels, all of which were used once before; one subscription to all."""
    names = _names(channels)

    async def run(n: int, sink: Sink) -> Metrics:
        setting = _Setting(names, sink)
        async with bus_on(setting.server.url, fresh=False) as bus:
            await keep(bus, f"{CHANNEL}.*")
            warm = [(name, {"i": -1, "text": TEXT.text}, None, {"content_type": JSON}) for name in names]
            payloads = TEXT.payloads(0, n)
            messages = [items([payload], names[payload["i"] % channels])[0] for payload in payloads]

            async def handler(message: Message) -> None:
                if message.payload["i"] >= 0:
                    setting.handlers[message.channel](message)

            subscribed = bus.subscribe(f"{CHANNEL}.*", handler, group=GROUP, capacity=1_000)
            await subscribed.ready()
            for first in range(0, channels, BATCH):
                await bus.publish_many(warm[first : first + BATCH])
            await _acked(bus, channels)
            with (meter := Meter(setting.server)):
                for first in range(0, n, BATCH):
                    await bus.publish_many(messages[first : first + BATCH])
                await _acked(bus, channels + n)
            counts = setting.counts()
            await settled(bus, subscribed, channels + n)
        return {**meter.per(n), **counts}

    return Arm(name=f"bus, {channels:,} channel{'s' if channels > 1 else ''}", run=run, expect=_shares(names))


def _shares(names: Sequence[str]) -> Callable[[int], Mapping[str, Sequence[int]]]:
    return lambda n: {name: range(k, n, len(names)) for k, name in enumerate(names[:n])}


def _streams(streams: int) -> Arm:
    """The same with a plain client, which reads all streams by one command."""
    names = _names(streams)

    async def run(n: int, sink: Sink) -> Metrics:
        setting = _Setting(names, sink)
        async with plain_client(setting.server.url) as client, plain_client(setting.server.url) as reader:
            pipeline = client.pipeline(transaction=False)
            for name in names:
                pipeline.xgroup_create(name, GROUP, id="0", mkstream=True)
            await pipeline.execute()

            async def consume() -> None:
                left = n
                while left:
                    acks = reader.pipeline(transaction=False)
                    found = await reader.xreadgroup(GROUP, "one", dict.fromkeys(names, ">"), count=BATCH, block=1_000)
                    for name, entries in found:
                        for _, fields in entries:
                            setting.handlers[name.decode()](json.loads(fields[b"data"]))
                        acks.xack(name, GROUP, *(id for id, _ in entries))
                        left -= len(entries)
                    await acks.execute()

            with (meter := Meter(setting.server)):
                consuming = asyncio.ensure_future(consume())
                for batch in batches(TEXT.payloads(0, n)):
                    pipeline = client.pipeline(transaction=False)
                    for payload in batch:
                        pipeline.xadd(names[payload["i"] % streams], entry(payload))
                    await pipeline.execute()
                await asyncio.wait_for(consuming, PATIENCE)
            counts = setting.counts()
        return {**meter.per(n), **counts}

    return Arm(name=f"raw, {streams:,} stream{'s' if streams > 1 else ''}", run=run, expect=_shares(names))


async def _acked(bus: MessageBus, n: int) -> None:
    async def all_of_them() -> None:
        while sum(each.acked for each in bus.metrics().subscriptions) < n:  # noqa: ASYNC110
            await asyncio.sleep(0.0005)

    await asyncio.wait_for(all_of_them(), PATIENCE)


def _many_channels() -> Benchmark:
    one, many = _channels(1), _channels(CHANNELS)
    return Benchmark(
        name="redis growth, channels",
        question=f"What does a message cost through 1 channel and through {CHANNELS:,}, with one pattern subscription?",
        arms=(many, one, _streams(CHANNELS), _streams(1)),
        messages=10_000,
        check_messages=3 * CHANNELS,
        targets=(
            Target(
                what=f"{CHANNELS:,} channels, times the speed of one", subject=many.name, peer=one.name, goal=SLOWER
            ),
            *(
                Target(what=f"{what} with {CHANNELS:,} channels", subject=many.name, metric=what, goal=goal)
                for what, goal in (("connections", 5), ("threads", 4))
            ),
        ),
    )


BENCHMARKS = (_backlogs(), _many_channels())

if __name__ == "__main__":
    main(BENCHMARKS, PLACE)
