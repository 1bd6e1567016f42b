"""How long does a message take through Kafka, from publish in one process to its handler in another, at a low rate?"""

from __future__ import annotations

from benchmarks._cli import main
from benchmarks._harness import Arm, Benchmark, Metrics
from benchmarks._kafka import PLACE, warm, wiped
from benchmarks._kafka_peers import MODULE, PEERS, SKIPPED, Bus, Publisher, Raw
from benchmarks._loads import LOADS, Load, at_rate, latencies, latency_benchmark
from benchmarks._redis_process import Child
from benchmarks._sink import Sink

__all__ = ["BENCHMARKS"]

ASKED = ("FastStream",)
"""With the plain load; raw with all."""


def _latency(peer: type[Publisher], load: Load) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        parts = load.parts(n)
        n = sum(map(len, parts))
        handle = sink.plain()
        store = wiped(raw=peer is not Bus)
        async with peer.open(store) as publisher, Child(peer.kind, store.url, n, load, module=MODULE) as child:
            await publisher.publish(warm(load.text))
            left = await at_rate(publisher.publish, parts)
            told = await child.told()
        for i in told["numbers"]:
            handle({"i": i})
        return latencies(left, told)

    return Arm(name=peer.name, run=run, producers=load.publishers, ordered=False)


def _benchmark(load: Load) -> Benchmark:
    peers: list[type[Publisher]] = [Bus, Raw, *(peer for peer in PEERS if peer.name in ASKED and load.plain)]
    return latency_benchmark("kafka", load, [_latency(peer, load) for peer in peers], SKIPPED)


BENCHMARKS = tuple(map(_benchmark, LOADS))

if __name__ == "__main__":
    main(BENCHMARKS, PLACE)
