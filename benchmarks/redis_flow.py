"""How many messages a second go through Redis, from a publish in one process to a settled handler in another?"""

from __future__ import annotations

import time

from benchmarks._cli import main
from benchmarks._harness import Arm, Benchmark, Metrics
from benchmarks._loads import LOADS, Load, above_ideal, flow_benchmark, sleepers
from benchmarks._redis import PLACE, Meter, wiped
from benchmarks._redis_peers import PEERS, SKIPPED, Bus, Publisher, Raw
from benchmarks._redis_process import Child
from benchmarks._sink import Sink

__all__ = ["BENCHMARKS"]

GOALS = {"raw": 0.7, "FastStream": 5.0}
"""Raw's is for many publishers."""


def _flow(peer: type[Publisher], load: Load) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        parts = load.parts(n)
        n = sum(map(len, parts))
        handle = sink.plain()
        server = wiped()
        async with peer.open(server.url) as publisher, Child(peer.kind, server.url, n, load) as child:
            with (meter := Meter(server)):
                await publisher.publish_all(parts)
                published = time.monotonic_ns() - meter.began
                told = await child.told()
        for i in told["numbers"]:
            handle({"i": i})
        meter.wall_ns = told["end"] - meter.began
        meter.cpu_ns += told["cpu"]
        return {**meter.per(n), "published_ns": published / n, **above_ideal(meter.wall_ns / n, load.nap_ms)}

    return Arm(
        name=peer.name,
        run=run,
        producers=load.publishers,
        ordered=peer.ordered and not load.nap_ms,
        share=1.0 if load.nap_ms else peer.share,
    )


def _asked(load: Load) -> list[type[Publisher]]:
    """All with small messages; with large ones those that there are targets for."""
    peers = [peer for peer in PEERS if not load.nap_ms or "batches" not in peer.name]
    return [Bus, Raw, *(peer for peer in peers if not load.large or peer.name in GOALS)]


def _benchmark(load: Load) -> Benchmark:
    peers = _asked(load)
    arms = [_flow(peer, load) for peer in peers]
    if load.nap_ms:
        arms.append(sleepers(lambda: Meter(PLACE.server()), load.nap_ms, "published_ns"))
    goals = {name: goal for name, goal in GOALS.items() if name != Raw.name or load.publishers > 1}
    return flow_benchmark("redis", load, arms, goals, (*(peer.note for peer in peers if peer.note), *SKIPPED))


BENCHMARKS = tuple(map(_benchmark, LOADS))

if __name__ == "__main__":
    main(BENCHMARKS, PLACE)
