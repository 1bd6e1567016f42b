"""How many bytes does a queued message take beyond its payload?"""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks._bus import CHANNEL
from benchmarks._cli import main
from benchmarks._harness import Arm, Benchmark, Metrics, Target
from benchmarks._sink import Gate, Recorder, Sink, check
from neuralcore.messaging.bus import MessageBus

__all__ = ["BENCHMARKS"]

Fill = Callable[[int, Sink], Awaitable[float]]
"""Queues n messages, answers the growth of the process's resident memory in bytes, and has them handled."""

PAYLOADS = [{"i": i} for i in range(1_000)]
"""Shared by all messages, so that payloads cost nothing but their references."""


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def _bus(n: int, sink: Sink) -> float:
    gate = Gate()
    async with MessageBus() as bus:
        subscribed = bus.subscribe(CHANNEL, sink.gated(gate), capacity=n)
        await subscribed.ready()
        before = _resident()
        for i in range(n):
            await bus.publish(CHANNEL, PAYLOADS[i % 1_000])
        after = _resident()
        gate.open()
        await subscribed.unsubscribe(timeout=60.0)
    return after - before


async def _drained(queue: asyncio.Queue[Any], n: int, sink: Sink) -> None:
    handle = sink.awaited()
    for _ in range(n):
        entry = await queue.get()
        await handle(entry[-1] if isinstance(entry, tuple) else entry)


async def _queue(n: int, sink: Sink) -> float:
    queue: asyncio.Queue[dict[str, int]] = asyncio.Queue()
    before = _resident()
    for i in range(n):
        await queue.put(PAYLOADS[i % 1_000])
    after = _resident()
    await _drained(queue, n, sink)
    return after - before


async def _priority_queue(n: int, sink: Sink) -> float:
    queue: asyncio.PriorityQueue[tuple[int, int, dict[str, int]]] = asyncio.PriorityQueue()
    sequence = count()
    before = _resident()
    for i in range(n):
        await queue.put((50, next(sequence), PAYLOADS[i % 1_000]))
    after = _resident()
    await _drained(queue, n, sink)
    return after - before


FILLS: dict[str, Fill] = {"bus": _bus, "asyncio.Queue": _queue, "asyncio.PriorityQueue": _priority_queue}


def _expected(n: int) -> dict[str, list[int]]:
    return {"": [i % 1_000 for i in range(n)]}


def _arm(name: str) -> Arm:
    """Timed, in a process of its own: memory that was freed and is used again would count as nothing."""

    async def run(n: int, sink: Sink) -> Metrics:
        if isinstance(sink, Recorder):
            return {"bytes": await FILLS[name](n, sink) / n}
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.memory", "--child", name, str(n), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await child.communicate()
        if child.returncode != 0:
            raise RuntimeError(f"measuring the memory of {name} failed; see above")
        return {"bytes": float(output) / n}

    return Arm(name=name, run=run, expect=_expected)


def _child(name: str, n: int) -> None:
    recorder = Recorder()
    grown = asyncio.run(_measured(name, n, recorder))
    check(name, recorder.seen, _expected(n))
    print(grown)


async def _measured(name: str, n: int, sink: Sink) -> float:
    return await FILLS[name](n, sink)


BENCHMARKS = (
    Benchmark(
        name="memory",
        question=__doc__,
        arms=tuple(_arm(name) for name in FILLS),
        messages=300_000,
        metric="bytes",
        targets=(
            Target(what="bytes of a queued message beyond its payload", subject="bus", metric="bytes", goal=200.0),
        ),
    ),
)

if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2], int(sys.argv[3]))
    else:
        main(BENCHMARKS)
