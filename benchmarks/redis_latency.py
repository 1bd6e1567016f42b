"""How long does a message take through Redis, from publish in one process to its handler in another, at a low rate?"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

from benchmarks._cli import main
from benchmarks._harness import Arm, Benchmark, Metrics, Target
from benchmarks._redis import PLACE, Payload, wiped
from benchmarks._redis_peers import PEERS, SKIPPED, TEXT, Bus, Publisher, Raw
from benchmarks._redis_process import Child
from benchmarks._sink import Sink

__all__ = ["BENCHMARKS"]

RATE = 200
"""Messages a second."""
ASKED = ("FastStream", "taskiq")


async def _at_rate(publish: Callable[[Payload], Awaitable[object]], n: int) -> list[int]:
    """When each was handed to its publish, which is late only when the one before took longer than the pause."""
    start, sent = time.monotonic(), []
    for i, payload in enumerate(TEXT.payloads(0, n)):
        await asyncio.sleep(max(0.0, start + i / RATE - time.monotonic()))
        sent.append(time.monotonic_ns())
        await publish(payload)
    return sent


def _latency(peer: type[Publisher]) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        handle = sink.plain()
        server = wiped()
        async with peer.open(server.url) as publisher, Child(peer.kind, server.url, n) as child:
            sent = await _at_rate(publisher.publish, n)
            told = await child.told()
        for i in told["numbers"]:
            handle({"i": i})
        came = dict(zip(told["numbers"], told["moments"], strict=True))
        times = [came[i] - left for i, left in enumerate(sent)]
        cuts = statistics.quantiles(times, n=100, method="inclusive")
        return {"p50_ns": cuts[49], "p90_ns": cuts[89], "p99_ns": cuts[98]}

    return Arm(name=peer.name, run=run, ordered=peer.ordered)


_peers = (Raw, *(peer for peer in PEERS if peer.name in ASKED))

BENCHMARKS = (
    Benchmark(
        name=f"redis latency at {RATE}/s",
        question=__doc__,
        arms=tuple(map(_latency, (Bus, *_peers))),
        messages=600,
        metric="p50_ns",
        check_messages=60,
        targets=(
            Target(
                what="latency p50, times raw's speed",
                subject="bus",
                peer="raw",
                metric="p50_ns",
                goal=round(1 / 1.5, 2),
            ),
            Target(
                what="latency p99, times raw's speed",
                subject="bus",
                peer="raw",
                metric="p99_ns",
                goal=round(1 / 1.5, 2),
            ),
        ),
        skipped=SKIPPED,
    ),
)

if __name__ == "__main__":
    main(BENCHMARKS, PLACE)
