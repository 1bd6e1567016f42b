"""How fast does one channel carry messages to an async no-op handler, against asyncio's queues?"""

from __future__ import annotations

import sys

from benchmarks._bubus import bubus_arm
from benchmarks._bus import bus_arm
from benchmarks._cli import main
from benchmarks._harness import Benchmark, Target
from benchmarks._peers import awaiting_loop, priority_queue_arm, queue_arm
from neuralcore._core import is_native_available

__all__ = ["BENCHMARKS"]

CAPACITY = 1_000
MODERN = sys.version_info >= (3, 12)
"""Whose asyncio is faster."""


def _native() -> tuple[Target, ...]:
    """Set for CPython 3.11; for later ones only the first was."""
    first = Target(
        what="one channel, times asyncio.Queue",
        subject="bus",
        peer="asyncio.Queue",
        goal=2.0 if MODERN else 2.5,
        floor=1.7 if MODERN else 2.0,
    )
    second = Target(
        what="one channel, times asyncio.PriorityQueue",
        subject="bus",
        peer="asyncio.PriorityQueue",
        goal=3.5,
        floor=2.8,
    )
    return (first,) if MODERN else (first, second)


def _fallback() -> tuple[Target, ...]:
    return (Target(what="fallback, times asyncio.Queue", subject="bus", peer="asyncio.Queue", goal=0.6),)


_bubus, _skipped = bubus_arm()

BENCHMARKS = (
    Benchmark(
        name="throughput",
        question=__doc__,
        arms=(bus_arm(CAPACITY), queue_arm(CAPACITY), priority_queue_arm(CAPACITY), awaiting_loop(), *_bubus),
        messages=50_000,
        targets=_native() if is_native_available() else _fallback(),
        skipped=_skipped,
    ),
)

if __name__ == "__main__":
    main(BENCHMARKS)
