"""How many messages a second do four processes handle together from one file?"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks._bus import CHANNEL
from benchmarks._cli import main
from benchmarks._durable import GROUP, PLACE, TEXT, bus_at, folder, payloads, spawn, store
from benchmarks._durable_peers import NAP, PEERS, SKIPPED, TAKEN_AT_ONCE, Peer
from benchmarks._harness import Arm, Benchmark, Metrics, Target
from benchmarks._sink import CheckFailed, Sink

__all__ = ["BENCHMARKS"]

PROCESSES = 4
QUIET = 0.5
"""Seconds without a message after which a child takes the file for empty; not counted."""
BUS = "bus"


class Seen:
    """What a child has handled, and when it handled the last."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.last = time.monotonic_ns()

    def handle(self, item: Any) -> None:
        payload = getattr(item, "payload", item)
        self.numbers.append(payload["i"] if payload["text"] == TEXT else -1)
        self.last = time.monotonic_ns()

    def quiet(self) -> bool:
        return time.monotonic_ns() - self.last > QUIET * 1e9


async def _bus_child(path: Path, ready: Callable[[], None]) -> Seen:
    async with bus_at(path, fresh=False) as bus:
        ready()
        seen = Seen()

        async def handler(message: object) -> None:
            seen.handle(message)

        subscribed = bus.subscribe(CHANNEL, handler, group=GROUP)
        while not seen.quiet():  # noqa: ASYNC110
            await asyncio.sleep(QUIET / 10)
        await subscribed.unsubscribe(timeout=60.0)
    return seen


def _peer_child(peer: Peer, ready: Callable[[], None]) -> Seen:
    ready()
    seen = Seen()
    while not seen.quiet():
        if taken := peer.take(TAKEN_AT_ONCE):
            for payload, _ in taken:
                seen.handle(payload)
            peer.settle(taken)
        else:
            time.sleep(NAP)
    peer.close()
    return seen


def _child(name: str, path: Path) -> None:
    started = 0

    def ready() -> None:
        nonlocal started
        print("ready", flush=True)
        sys.stdin.readline()
        started = time.process_time_ns()

    if name == BUS:
        seen = asyncio.run(_bus_child(path, ready))
    else:
        seen = _peer_child(next(peer for peer in PEERS if peer.name == name)(path), ready)
    print(json.dumps({"numbers": seen.numbers, "last": seen.last, "cpu": time.process_time_ns() - started}))


async def _handled(name: str, path: Path, n: int, sink: Sink) -> Metrics:
    children = [await spawn("benchmarks.durable_processes", name, path) for _ in range(PROCESSES)]
    try:
        for child in children:
            await _out(child).readline()
        start = time.monotonic_ns()
        for child in children:
            if child.stdin:
                child.stdin.write(b"go\n")
        lines = [await _out(child).readline() for child in children]
    finally:
        for child in children:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    if not all(lines):
        raise RuntimeError(f"a process of {name} failed; see above")
    answers = [json.loads(line) for line in lines]
    handle, numbers = sink.plain(), sorted(i for answer in answers for i in answer["numbers"])
    for i in numbers:
        handle({"i": i})
    if numbers != list(range(n)):
        raise CheckFailed(f"{name}: {len(numbers)} messages handled, {len(set(numbers))} different, {n} published")
    return {
        "wall_ns": (max(answer["last"] for answer in answers) - start) / n,
        "cpu_ns": sum(answer["cpu"] for answer in answers) / n,
        "least_share": min(len(answer["numbers"]) for answer in answers) * 100 / n,
    }


def _out(child: asyncio.subprocess.Process) -> asyncio.StreamReader:
    assert child.stdout
    return child.stdout


def _bus() -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        with folder() as made:
            async with bus_at(made) as bus:
                await store(bus, 0, n)
            return await _handled(BUS, made, n, sink)

    return Arm(name=BUS, run=run, ordered=False)


def _peer(opened: type[Peer]) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        with folder() as made:
            peer = opened(made)
            peer.fill(payloads(0, n))
            peer.close()
            return await _handled(opened.name, made, n, sink)

    return Arm(name=opened.name, run=run, ordered=False, share=1.0 if opened.many else 0.05)


_peers = tuple(_peer(peer) for peer in PEERS if peer.shared)

BENCHMARKS = (
    Benchmark(
        name="durable processes",
        question=__doc__,
        arms=(_bus(), *_peers),
        messages=8_000,
        check_messages=400,
        targets=tuple(
            Target(what=f"four processes, times {arm.name}", subject=BUS, peer=arm.name, goal=1.0) for arm in _peers
        ),
        skipped=(
            *SKIPPED,
            *(
                f"left out: two processes may take the same message from {peer.name}"
                for peer in PEERS
                if not peer.shared
            ),
        ),
    ),
)

if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        PLACE.url = sys.argv[2]
        _child(sys.argv[3], Path(sys.argv[4]))
    else:
        main(BENCHMARKS, PLACE)
