"""What does a deep backlog cost: 200,000 messages enter, and only then is the first one handled?"""

from __future__ import annotations

from benchmarks._bus import bus_backlog
from benchmarks._cli import main
from benchmarks._harness import Benchmark, Target
from benchmarks._peers import queue_backlog

__all__ = ["BENCHMARKS"]

BENCHMARKS = (
    Benchmark(
        name="backlog",
        question=__doc__,
        arms=(bus_backlog(), queue_backlog()),
        messages=200_000,
        targets=(
            Target(what="backlog of 200,000, times asyncio.Queue", subject="bus", peer="asyncio.Queue", goal=1.6),
        ),
    ),
)

if __name__ == "__main__":
    main(BENCHMARKS)
