"""How many messages a second go through Kafka, from a publish in one process to a settled handler in another?"""

from __future__ import annotations

import asyncio
import time

from benchmarks._cli import main
from benchmarks._harness import Arm, Benchmark, Metrics, Target
from benchmarks._kafka import PLACE, Meter, warm, wiped
from benchmarks._kafka_peers import CONCURRENCY, MODULE, PEERS, SKIPPED, TEXT, Bus, Publisher, Raw
from benchmarks._redis_process import Child
from benchmarks._sink import Sink

__all__ = ["BENCHMARKS"]

MANY = 16
NAP_MS = 5
IDEAL_NS = NAP_MS * 1e6 / CONCURRENCY
SLEEP = "no store: asyncio.sleep"


def _flow(peer: type[Publisher], publishers: int, nap_ms: int) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        parts = TEXT.shares(n, publishers)
        n = sum(map(len, parts))
        handle = sink.plain()
        store = wiped(raw=peer is not Bus)
        async with peer.open(store) as publisher, Child(peer.kind, store.url, n, nap_ms, module=MODULE) as child:
            await publisher.publish(warm(TEXT))
            with (meter := Meter()):
                await publisher.publish_all(parts)
                published = time.monotonic_ns() - meter.began
                told = await child.told()
        for i in told["numbers"]:
            handle({"i": i})
        meter.wall_ns = told["end"] - meter.began
        meter.cpu_ns += told["cpu"]
        return {**meter.per(n), "published_ns": published / n, **_above_ideal(meter.wall_ns / n, nap_ms)}

    return Arm(name=peer.name, run=run, producers=publishers, ordered=False, share=1.0 if nap_ms else peer.share)


def _above_ideal(wall_ns: float, nap_ms: int) -> dict[str, float]:
    return {"above_ideal_%": (wall_ns / IDEAL_NS - 1) * 100} if nap_ms else {}


async def _sleepers(n: int, sink: Sink) -> Metrics:
    """As many tasks as there are handlers, and nothing else: the loop's timers wake them a little late."""
    numbers, handle = iter(range(n)), sink.plain()

    async def sleeper() -> None:
        for i in numbers:
            handle({"i": i})
            await asyncio.sleep(NAP_MS / 1000)

    with (meter := Meter()):
        await asyncio.gather(*(sleeper() for _ in range(CONCURRENCY)))
    return {**meter.per(n), "published_ns": 0.0, **_above_ideal(meter.wall_ns / n, NAP_MS)}


def _benchmark(publishers: int, nap_ms: int) -> Benchmark:
    peers: list[type[Publisher]] = [Bus, Raw, *(peer for peer in PEERS if peer.naps or not nap_ms)]
    arms = [_flow(peer, publishers, nap_ms) for peer in peers]
    if nap_ms:
        arms.append(Arm(name=SLEEP, run=_sleepers))
    handlers = f"{CONCURRENCY} handlers at once of {nap_ms} ms" if nap_ms else "a handler that does nothing"
    targets = []
    if not nap_ms:
        what = f"{publishers} to settled, times"
        targets += [
            Target(what=f"{what} {peer.name}", subject="bus", peer=peer.name, goal=goal)
            for peer, goal in ((peer, 0.7 if peer is Raw else 5.0) for peer in peers[1:])
            if peer.name in ("raw", "FastStream")
        ]
    if nap_ms and publishers > 1:
        what = f"{publishers} to handlers of {nap_ms} ms"
        targets.append(Target(what=f"{what}, % above ideal", subject="bus", metric="above_ideal_%", goal=10.0))
        targets.append(
            Target(what=f"{what}, times the speed of {SLEEP}", subject="bus", peer=SLEEP, goal=round(1 / 1.1, 2))
        )
    return Benchmark(
        name=f"kafka flow, {publishers} at once, {nap_ms} ms",
        question=f"What does a message cost from publish to settled with {publishers} publishers and {handlers}?",
        arms=tuple(arms),
        messages=2_000 if nap_ms or publishers == 1 else 8_000,
        check_messages=160,
        targets=tuple(targets),
        skipped=(*(peer.note for peer in peers if peer.note), *SKIPPED),
    )


BENCHMARKS = tuple(_benchmark(publishers, nap_ms) for nap_ms in (0, NAP_MS) for publishers in (1, MANY))

if __name__ == "__main__":
    main(BENCHMARKS, PLACE)
