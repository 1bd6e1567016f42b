"""Does a message cost more beside many others in Kafka, or with many channels? And threads, connections?

By default 200 thousand messages against 10 thousand, and 200 channels against one; the long form is ``--backlog 1000000
--channels 1000``. Channels have one partition each here: a thousand of them with eight is more than a test's broker
holds.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from benchmarks._bus import CHANNEL
from benchmarks._cli import main
from benchmarks._durable import GROUP, settled
from benchmarks._harness import Arm, Benchmark, Metrics, Target
from benchmarks._kafka import PLACE, Clock, Meter, Store, bus_on
from benchmarks._redis import BATCH, JSON, PATIENCE, Payload, Text, batches, items, keep, publish_batches
from benchmarks._sink import Sink
from neuralcore._core import Message
from neuralcore.messaging.bus import MessageBus

__all__ = ["BENCHMARKS"]

SLOWER = round(1 / 1.5, 2)
"""How fast the larger one must at least be, times the smaller one."""
TEXT = Text(200)
FEW = 10_000
FILLED_AT_ONCE = 1_000
WARMING = -1

Handle = Callable[[Any], object]


class Stored:
    """A store for all rounds, filled at the first: as many messages come as go, so it stays as full."""

    def __init__(self, name: str, backlog: Callable[[], int]) -> None:
        self._name, self._backlog = name, backlog
        self._taken = self._came = 0

    async def __call__(self, n: int, sink: Sink) -> Metrics:
        store, fresh = PLACE.kept(self._name)
        if fresh:
            self._taken = self._came = 0
            self._came = await _fill(store, self._backlog())
        handle, came = TEXT.checked(sink, sink.plain()), iter(range(n))

        def renumbered(payload: Payload) -> None:
            """Partitions are read in whichever order: each is handled once, so that they count themselves."""
            if payload["i"] in self._seen:
                raise RuntimeError("a message came twice")
            self._seen.add(payload["i"])
            handle({**payload, "i": next(came)})

        half = n - n // 2
        new = TEXT.payloads(self._came, self._came + n)
        self._came += n
        async with bus_on(store, fresh=False) as bus:
            await bus.publish("bench.warm", {}, content_type=JSON)
            publish, fetch = await _one_by_one(bus, new[:half], renumbered)
        async with bus_on(store, fresh=False) as bus:
            await bus.publish("bench.warm", {}, content_type=JSON)
            with (published := Meter()):
                await publish_batches(bus, batches(new[half:]))
            clock = await _handled(bus, n - half, renumbered)
        meter = clock.meter
        meter.wall_ns += published.wall_ns
        meter.cpu_ns += published.cpu_ns
        meter.server_ns += published.server_ns
        return {**clock.per(n - half), "publish_p50_ns": publish, "fetch_p50_ns": fetch}

    @property
    def _seen(self) -> set[int]:
        return _SEEN.setdefault(self._name, set())


_SEEN: dict[str, set[int]] = {}


async def _fill(store: Store, backlog: int) -> int:
    async with bus_on(store) as bus:
        for first in range(0, backlog, FILLED_AT_ONCE):
            await bus.publish_many(items(TEXT.payloads(first, min(backlog, first + FILLED_AT_ONCE))))
    return backlog


async def _one_by_one(bus: MessageBus, payloads: Sequence[Payload], handle: Handle) -> tuple[float, float]:
    """Medians of a publish, and of a fetch with its settlement: there is room for one message only."""
    published = await _times([partial(bus.publish, CHANNEL, payload, content_type=JSON) for payload in payloads])
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


async def _handled(bus: MessageBus, n: int, handle: Handle) -> Clock:
    """Exactly n of the backlog: the handler of the one after them does not end, so that it goes back."""
    clock, enough = Clock(), asyncio.Event()

    async def handler(message: Message) -> None:
        if clock.count == n:
            clock.meter.stop()
            enough.set()
            await asyncio.Event().wait()
        clock.handled()
        handle(message.payload)

    subscribed = bus.subscribe(CHANNEL, handler, group=GROUP, capacity=BATCH)
    await asyncio.wait_for(enough.wait(), PATIENCE)
    await subscribed.unsubscribe(drain=False, timeout=PATIENCE)
    return clock


def _backlogs() -> Benchmark:
    few = Arm(name="bus, 10 thousand", run=Stored("few", lambda: min(FEW, PLACE.backlog)), ordered=False)
    full = Arm(name="bus, full", run=Stored("full", lambda: PLACE.backlog), ordered=False)
    return Benchmark(
        name="kafka growth, backlog",
        question="What does a message cost beside 10 thousand, and beside 200 thousand (--backlog)?",
        arms=(full, few),
        messages=2_000,
        check_messages=400,
        targets=tuple(
            Target(
                what=f"{what} when full, times the speed with 10 thousand",
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


def _channels(name: str, count: Callable[[], int]) -> Arm:
    """Batches whose messages go round the channels, all of which were used once before; one subscription to all."""

    def named() -> list[str]:
        return [f"{CHANNEL}.{k}" for k in range(count())]

    async def run(n: int, sink: Sink) -> Metrics:
        names, channels = named(), count()
        store, fresh = PLACE.kept(name, 1)
        handlers = {each: TEXT.checked(sink, sink.plain(each)) for each in names}
        threads = threading.active_count()
        came = 0
        async with bus_on(store, fresh=False) as bus:
            if fresh:
                await keep(bus, f"{CHANNEL}.*")
            warm = [(each, {"i": WARMING, "text": TEXT.text}, None, {"content_type": JSON}) for each in names]
            payloads = TEXT.payloads(0, n)
            messages = [items([payload], names[payload["i"] % channels])[0] for payload in payloads]

            async def handler(message: Message) -> None:
                nonlocal came
                came += 1
                if message.payload["i"] != WARMING:
                    handlers[message.channel](message)

            async def handled(n: int) -> None:
                async def all_of_them() -> None:
                    while came < n or _acked(bus) < n:  # noqa: ASYNC110
                        await asyncio.sleep(0.0005)

                await asyncio.wait_for(all_of_them(), PATIENCE)

            subscribed = bus.subscribe(f"{CHANNEL}.*", handler, group=GROUP, capacity=1_000)
            await subscribed.ready()
            for first in range(0, channels, BATCH):
                await bus.publish_many(warm[first : first + BATCH])
            await handled(channels)
            with (meter := Meter()):
                for first in range(0, n, BATCH):
                    await bus.publish_many(messages[first : first + BATCH])
                await handled(channels + n)
            counts = {"sockets": float(_sockets()), "threads": float(threading.active_count() - threads)}
            await settled(bus, subscribed, channels + n)
        return {**meter.per(n), **counts}

    def expect(n: int) -> Mapping[str, Sequence[int]]:
        return {each: range(k, n, count()) for k, each in enumerate(named()[:n])}

    return Arm(name=name, run=run, expect=expect)


def _acked(bus: MessageBus) -> int:
    return sum(each.acked for each in bus.metrics().subscriptions)


def _sockets() -> int:
    """Those of this process."""
    return sum(1 for each in Path("/proc/self/fd").iterdir() if each.is_symlink() and _is_socket(each))


def _is_socket(each: Path) -> bool:
    try:
        return str(each.readlink()).startswith("socket:")
    except OSError:
        return False


def _many_channels() -> Benchmark:
    one, many = _channels("bus, 1 channel", lambda: 1), _channels("bus, many channels", lambda: PLACE.channels)
    return Benchmark(
        name="kafka growth, channels",
        question="What does a message cost through one channel and through 200 (--channels), with one pattern?",
        arms=(many, one),
        messages=10_000,
        check_messages=600,
        targets=(
            Target(what="many channels, times the speed of one", subject=many.name, peer=one.name, goal=SLOWER),
            *(
                Target(
                    what=f"{what} with many channels, times those of one",
                    subject=many.name,
                    peer=one.name,
                    metric=what,
                    goal=0.8,
                )
                for what in ("sockets", "threads")
            ),
        ),
    )


BENCHMARKS = (_backlogs(), _many_channels())

if __name__ == "__main__":
    main(BENCHMARKS, PLACE)
