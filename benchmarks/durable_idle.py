"""What does waiting cost, and how long does a message take from one process to the handler in another?"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks._bus import CHANNEL
from benchmarks._cli import main
from benchmarks._durable import GROUP, PLACE, TEXT, Payload, bus_at, folder, payloads, spawn
from benchmarks._durable_peers import PEERS, SKIPPED, Honker, Peer
from benchmarks._harness import Arm, Benchmark, Metrics, Target
from benchmarks._sink import CheckFailed, Sink

__all__ = ["BENCHMARKS"]

SETTLE, IDLE = 0.3, 1.0
"""Seconds: before the idle time is looked at, and how long it is."""
PAUSE = 0.01
"""Seconds between two messages."""
BUS = "bus"
LAST = -1
"""The number of the message that ends a child."""

Naps = Callable[[int], float]
"""How long a peer waits after so many looks that found nothing."""

NAPS: dict[str, Naps] = {
    "huey": lambda looks: min(10.0, 0.1 * 1.15**looks),
    "localqueue": lambda looks: min(0.25, 0.01 * 1.5**looks),
}
"""As the worker of huey and the blocking ``get`` of localqueue do; the other peers have no way to wait but honker."""


class Arrivals:
    def __init__(self, told: Callable[[], None]) -> None:
        self.moments: list[tuple[int, int]] = []
        self._told = told

    def handle(self, item: Any) -> bool:
        """Whether it was the last."""
        now = time.monotonic_ns()
        payload = getattr(item, "payload", item)
        if payload["i"] == LAST:
            self._told()
            return True
        self.moments.append((payload["i"] if payload["text"] == TEXT else -2, now))
        return False


def _nothing() -> None:
    pass


async def _bus_child(path: Path) -> Arrivals:
    ended = asyncio.Event()
    arrivals = Arrivals(ended.set)

    async def handler(message: object) -> None:
        arrivals.handle(message)

    async with bus_at(path, fresh=False) as bus:
        await bus.subscribe(CHANNEL, handler, group=GROUP).ready()
        _watch_idleness()
        await ended.wait()
    return arrivals


async def _honker_child(path: Path) -> Arrivals:
    arrivals = Arrivals(_nothing)
    peer = Honker(path)
    _watch_idleness()
    async for job in peer.claim():
        ended = arrivals.handle(job.payload)
        job.ack()
        if ended:
            break
    return arrivals


def _peer_child(opened: type[Peer], path: Path) -> Arrivals:
    arrivals, naps = Arrivals(_nothing), NAPS[opened.name]
    peer = opened(path)
    _watch_idleness()
    looks = 0
    while True:
        if not (taken := peer.take(1)):
            time.sleep(naps(looks))
            looks += 1
            continue
        looks = 0
        ended = arrivals.handle(taken[0][0])
        peer.settle(taken)
        if ended:
            peer.close()
            return arrivals


def _watch_idleness() -> None:
    """A thread tells the parent what the process used while nothing came: seconds of CPU, and switches of context."""

    def watch() -> None:
        import resource

        def used() -> tuple[float, int]:
            usage = resource.getrusage(resource.RUSAGE_SELF)
            return usage.ru_utime + usage.ru_stime, usage.ru_nvcsw

        time.sleep(SETTLE)
        before = used()
        time.sleep(IDLE)
        after = used()
        print(json.dumps([each - was for each, was in zip(after, before, strict=True)]), flush=True)

    threading.Thread(target=watch, daemon=True).start()


def _child(name: str, path: Path) -> None:
    if name == BUS:
        arrivals = asyncio.run(_bus_child(path))
    elif name == Honker.name:
        arrivals = asyncio.run(_honker_child(path))
    else:
        arrivals = _peer_child(next(peer for peer in PEERS if peer.name == name), path)
    print(json.dumps(arrivals.moments), flush=True)
    os._exit(0)  # honker's watcher does not end by itself


async def _watched(name: str, path: Path, put: Callable[[Payload], Awaitable[object]], n: int, sink: Sink) -> Metrics:
    child = await spawn("benchmarks.durable_idle", name, path)
    assert child.stdout
    try:
        if not (line := await child.stdout.readline()):
            raise RuntimeError(f"the process of {name} failed; see above")
        cpu, wakeups = json.loads(line)
        sent = []
        for payload in payloads(0, n):
            sent.append(time.monotonic_ns())
            await put(payload)
            await asyncio.sleep(PAUSE)
        await put({"i": LAST, "text": TEXT})
        moments = json.loads(await child.stdout.readline())
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()
    handle = sink.plain()
    for i, _ in moments:
        handle({"i": i})
    if [i for i, _ in moments] != list(range(n)):
        raise CheckFailed(f"{name}: {len(moments)} messages handled, {n} published, or out of order")
    times = [came - left for (_, came), left in zip(moments, sent, strict=True)]
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {
        "cpu_us_per_s": cpu * 1e6 / IDLE,
        "wakeups_per_s": wakeups / IDLE,
        "p50_ns": cuts[49],
        "p99_ns": cuts[98],
    }


def _bus() -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        with folder() as made:
            async with bus_at(made) as bus:
                return await _watched(BUS, made, lambda payload: bus.publish(CHANNEL, payload), n, sink)

    return Arm(name=BUS, run=run)


def _peer(opened: type[Peer]) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        with folder() as made:
            peer = opened(made)
            try:
                return await _watched(opened.name, made, lambda payload: asyncio.to_thread(peer.put, payload), n, sink)
            finally:
                peer.close()

    return Arm(name=opened.name, run=run)


_peers = tuple(_peer(peer) for peer in PEERS if peer.name in NAPS or peer is Honker)

BENCHMARKS = (
    Benchmark(
        name="durable idle",
        question=__doc__,
        arms=(_bus(), *_peers),
        messages=50,
        check_messages=20,
        metric="p50_ns",
        targets=tuple(
            Target(
                what=f"to another process p50, times {arm.name}'s speed",
                subject=BUS,
                peer=arm.name,
                metric="p50_ns",
                goal=1.0,
            )
            for arm in _peers
        ),
        skipped=(
            *SKIPPED,
            "left out: persist-queue, litequeue, simplebroker, diskcache: they wait for no other process",
        ),
    ),
)

if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        PLACE.url = sys.argv[2]
        _child(sys.argv[3], Path(sys.argv[4]))
    else:
        main(BENCHMARKS, PLACE)
