"""A generous part of the targets, for CI: fails when the bus has become slower, judged by ratios only.

A miss is measured again with more pairs, at most twice: noise shrinks with the number of pairs, a regression stays. The
bounds themselves never move.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from benchmarks import backlog, batch, channels, fanout, request_reply, threads, throughput
from benchmarks._harness import Benchmark, Measurement, Settings, Spread, measure, verify
from benchmarks._report import environment, headline
from neuralcore._core import is_native_available

__all__ = ["BOUNDS", "Bound", "judge", "main"]

ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The subject of a benchmark, its first arm, must be this many times as fast as the peer."""

    benchmark: Benchmark
    peer: str
    at_least: float

    def pair(self) -> Benchmark:
        """The benchmark without its other arms."""
        subject = self.benchmark.arms[0]
        peers = [arm for arm in self.benchmark.arms if arm.name == self.peer]
        return replace(self.benchmark, arms=(subject, *peers))

    def ratio(self, measurement: Measurement) -> Spread:
        return measurement.ratio(self.benchmark.arms[0].name, self.peer, self.benchmark.metric)


NATIVE = (
    Bound(benchmark=throughput.BENCHMARKS[0], peer="asyncio.Queue", at_least=1.3 if throughput.MODERN else 1.5),
    Bound(benchmark=throughput.BENCHMARKS[0], peer="asyncio.PriorityQueue", at_least=2.0),
    Bound(benchmark=backlog.BENCHMARKS[0], peer="asyncio.Queue", at_least=1.2),
    Bound(benchmark=channels.BENCHMARKS[0], peer="bus, one channel", at_least=0.5),
    Bound(benchmark=fanout.BENCHMARKS[0], peer="10 asyncio.Queues", at_least=1.8 if throughput.MODERN else 2.5),
    Bound(benchmark=threads.BENCHMARKS[0], peer="call_soon_threadsafe(put_nowait)", at_least=5.0),
    Bound(benchmark=request_reply.BENCHMARKS[0], peer="queue, future and timer", at_least=0.75),
    Bound(benchmark=batch.BENCHMARKS[1], peer="asyncio.Queue, one by one", at_least=6.0),
)
FALLBACK = (Bound(benchmark=throughput.BENCHMARKS[0], peer="asyncio.Queue", at_least=0.45),)
BOUNDS = NATIVE if is_native_available() else FALLBACK


def judge(bound: Bound, settings: Settings) -> tuple[bool, Spread]:
    """Whether the bound holds, and the ratio over all pairs that it took to say so."""
    measurement, pair = Measurement(), bound.pair()
    for _ in range(ATTEMPTS):
        measure(pair, settings, measurement)
        if bound.ratio(measurement).median >= bound.at_least:
            break
    ratio = bound.ratio(measurement)
    return ratio.median >= bound.at_least, ratio


def main() -> int:
    settings = Settings()
    where = environment(settings)
    print(headline(where), flush=True)
    if where["debug_build"]:
        print("The core is a debug build, so there is nothing to judge: build a release.")
        return 2
    missed = 0
    for bound in BOUNDS:
        verify(bound.pair(), settings)
        holds, ratio = judge(bound, settings)
        missed += not holds
        print(
            f"{'ok    ' if holds else 'MISSED'} {bound.benchmark.name}: {ratio.median:.2f} times {bound.peer} "
            f"({ratio.q1:.2f} to {ratio.q3:.2f}, {ratio.count} pairs), at least {bound.at_least:g}",
            flush=True,
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
