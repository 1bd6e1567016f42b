"""How long does a message take through Kafka, from publish in one process to its handler in another, at a low rate?"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

from benchmarks._cli import main
from benchmarks._harness import Arm, Benchmark, Metrics, Target
from benchmarks._kafka import PLACE, warm, wiped
from benchmarks._kafka_peers import MODULE, PEERS, SKIPPED, TEXT, Bus, Publisher, Raw
from benchmarks._redis import Payload
from benchmarks._redis_process import Child
from benchmarks._sink import Sink

__all__ = ["BENCHMARKS"]

RATE = 200
"""Messages a second."""
ASKED = ("FastStream",)


async def _at_rate(publish: Callable[[Payload], Awaitable[object]], n: int) -> list[int]:
    """When each was handed to its publish, which is late only when the one before took longer than the pause."""
    start, left = time.monotonic(), []
    for i, payload in enumerate(TEXT.payloads(0, n)):
        await asyncio.sleep(max(0.0, start + i / RATE - time.monotonic()))
        left.append(time.monotonic_ns())
        await publish(payload)
    return left


def _latency(peer: type[Publisher]) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        handle = sink.plain()
        store = wiped(raw=peer is not Bus)
        async with peer.open(store) as publisher, Child(peer.kind, store.url, n, module=MODULE) as child:
            await publisher.publish(warm(TEXT))
            left = await _at_rate(publisher.publish, n)
            told = await child.told()
        for i in told["numbers"]:
            handle({"i": i})
        came = dict(zip(told["numbers"], told["moments"], strict=True))
        times = [came[i] - moment for i, moment in enumerate(left)]
        cuts = statistics.quantiles(times, n=100, method="inclusive")
        return {"p50_ns": cuts[49], "p90_ns": cuts[89], "p99_ns": cuts[98]}

    return Arm(name=peer.name, run=run, ordered=False)


_peers: tuple[type[Publisher], ...] = (Bus, Raw, *(peer for peer in PEERS if peer.name in ASKED))

BENCHMARKS = (
    Benchmark(
        name=f"kafka latency at {RATE}/s",
        question=__doc__,
        arms=tuple(map(_latency, _peers)),
        messages=600,
        metric="p50_ns",
        check_messages=60,
        targets=tuple(
            Target(
                what=f"latency {name}, times raw's speed",
                subject="bus",
                peer="raw",
                metric=f"{name}_ns",
                goal=round(1 / 1.5, 2),
            )
            for name in ("p50", "p99")
        ),
        skipped=SKIPPED,
    ),
)

if __name__ == "__main__":
    main(BENCHMARKS, PLACE)
