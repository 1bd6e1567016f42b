"""Do publishing and fetching become slower with a million messages stored, and how long is the file?"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Protocol

from benchmarks._bus import CHANNEL
from benchmarks._cli import main
from benchmarks._durable import GROUP, PLACE, bus_at, checked, payloads, store
from benchmarks._durable_peers import PEERS, SKIPPED, Peer
from benchmarks._durable_threads import take_all
from benchmarks._harness import Arm, Benchmark, Metrics, Target
from benchmarks._sink import Sink

__all__ = ["BENCHMARKS"]

BATCH = 1_000
SLOWER = 1.5
"""How many times the empty store's p99 a full one may take."""

Times = list[int]
Handle = Callable[[Any], object]


class Kind(Protocol):
    """Fills a store; publishes and then fetches n messages on one, each timed."""

    name: str

    async def fill(self, folder: Path, n: int) -> None: ...
    async def use(self, folder: Path, start: int, n: int, handle: Handle) -> tuple[Times, Times]: ...


class Bus:
    """Pulled, with room for one message, so that every fetch and every settlement goes to the store by itself."""

    name = "bus"

    async def fill(self, folder: Path, n: int) -> None:
        async with bus_at(folder) as bus:
            await store(bus, 0, n)

    async def use(self, folder: Path, start: int, n: int, handle: Handle) -> tuple[Times, Times]:
        async with bus_at(folder, fresh=start == 0) as bus:
            published = await _timed(lambda payload: bus.publish(CHANNEL, payload), start, n)
            fetched = []
            async with bus.stream(CHANNEL, group=GROUP, capacity=1) as stream:
                for _ in range(n):
                    before = perf_counter_ns()
                    message = await anext(stream)
                    await message.ack()
                    fetched.append(perf_counter_ns() - before)
                    handle(message)
        return published, fetched


class Queue:
    def __init__(self, opened: type[Peer]) -> None:
        self._opened = opened
        self.name = opened.name

    async def fill(self, folder: Path, n: int) -> None:
        peer = self._opened(folder)
        for first in range(0, n, BATCH):
            peer.fill(payloads(first, min(n, first + BATCH)))
        peer.close()

    async def use(self, folder: Path, start: int, n: int, handle: Handle) -> tuple[Times, Times]:
        peer = self._opened(folder)

        async def put(payload: Any) -> None:
            peer.put(payload)

        published = await _timed(put, start, n)
        fetched: Times = []
        for _ in range(n):
            before = perf_counter_ns()
            take_all(peer, 1, handle)
            fetched.append(perf_counter_ns() - before)
        peer.close()
        return published, fetched


async def _timed(put: Callable[[Any], Awaitable[object]], start: int, n: int) -> Times:
    times = []
    for payload in payloads(start, start + n):
        before = perf_counter_ns()
        await put(payload)
        times.append(perf_counter_ns() - before)
    return times


class Full:
    """One store for all rounds, made at the first: as many messages come in as go out, so it stays as full."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._taken = 0
        self._stored = 0
        self._bytes = 0.0

    async def __call__(self, n: int, sink: Sink) -> Metrics:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="bench", dir=PLACE.directory)
            self._stored = PLACE.stored
            await self._kind.fill(Path(self._folder.name), self._stored)
            self._bytes = _length(Path(self._folder.name)) / self._stored
        handle, first = checked(sink, sink.plain()), self._taken

        def renumbered(item: Any) -> None:
            payload = getattr(item, "payload", item)
            handle({**payload, "i": payload["i"] - first})

        published, fetched = await self._kind.use(Path(self._folder.name), self._stored + first, n, renumbered)
        self._taken += len(fetched)
        return {**_metrics(published, fetched), "file_bytes": self._bytes}


def _empty(kind: Kind) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        with tempfile.TemporaryDirectory(prefix="bench", dir=PLACE.directory) as made:
            metrics = _metrics(*await kind.use(Path(made), 0, n, checked(sink, sink.plain())))
            return {**metrics, "file_bytes": _length(Path(made)) / n}

    return Arm(name=f"{kind.name}, empty", run=run)


def _metrics(published: Times, fetched: Times) -> dict[str, float]:
    metrics = {}
    for what, times in (("publish", published), ("fetch", fetched)):
        cuts = statistics.quantiles(times, n=100, method="inclusive")
        metrics |= {f"{what}_p50_ns": cuts[49], f"{what}_p99_ns": cuts[98]}
    return metrics


def _length(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _benchmark(kind: Kind) -> Benchmark:
    """The full store against the empty one of the same kind."""
    full, empty = Arm(name=f"{kind.name}, full", run=Full(kind)), _empty(kind)
    return Benchmark(
        name=f"durable growth, {kind.name}",
        question="What do a publish and a fetch with its settlement take on an empty and on a full store?",
        arms=(full, empty),
        messages=500,
        metric="publish_p99_ns",
        check_messages=200,
        targets=tuple(
            Target(
                what=f"{what} p99 on a full store, times the empty one's speed",
                subject=full.name,
                peer=empty.name,
                metric=f"{what}_p99_ns",
                goal=round(1 / SLOWER, 2),
            )
            for what in ("publish", "fetch")
            if isinstance(kind, Bus)
        ),
        skipped=SKIPPED,
    )


BENCHMARKS = tuple(_benchmark(kind) for kind in (Bus(), *(Queue(peer) for peer in PEERS)))

if __name__ == "__main__":
    main(BENCHMARKS, PLACE)
