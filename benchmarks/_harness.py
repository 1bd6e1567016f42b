"""Paired measurement: every round runs each arm once, and ratios are taken round by round.

An arm is one way to do the work: the bus, or a peer. It sets itself up, handles ``n`` messages under a `Watch`, and
answers metrics. Who handles the messages is given to it (`Sink`): a no-op when timed, a recorder when checked.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks._sink import NOOP, Recorder, Sink, check

__all__ = ["Arm", "Benchmark", "Measurement", "Metrics", "Settings", "Spread", "Target", "Watch", "measure", "verify"]

Metrics = Mapping[str, float]
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


class Watch:
    """Wall and CPU time of a ``with`` block; the CPU time is that of the calling thread unless told otherwise."""

    def __init__(self, cpu: Callable[[], int] = time.thread_time_ns) -> None:
        self._cpu = cpu
        self.wall_ns = self.cpu_ns = 0

    def __enter__(self) -> Watch:
        self._cpu_start = self._cpu()
        self._wall_start = time.perf_counter_ns()
        return self

    def __exit__(self, *exc: object) -> None:
        self.wall_ns = time.perf_counter_ns() - self._wall_start
        self.cpu_ns = self._cpu() - self._cpu_start

    def per(self, count: int) -> dict[str, float]:
        return {"wall_ns": self.wall_ns / count, "cpu_ns": self.cpu_ns / count}


def _all_in_order(n: int) -> dict[str, Sequence[int]]:
    return {"": range(n)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    name: str
    run: Callable[[int, Sink], Awaitable[Metrics]]
    expect: Callable[[int], Mapping[str, Sequence[int]]] = _all_in_order
    """What each stream of the sink must have seen after ``n`` messages, in this order."""
    producers: int = 1
    """More than one: the order holds inside each producer's equal share only."""
    ordered: bool = True
    """Whether the order is promised at all."""
    share: float = 1.0
    """The part of the messages that a slow peer gets."""

    def messages(self, n: int) -> int:
        return max(self.producers, int(n * self.share))


@dataclass(frozen=True, slots=True)
class Spread:
    median: float
    q1: float
    q3: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        ordered = sorted(values)
        q1, median, q3 = statistics.quantiles(ordered, n=4, method="inclusive") if len(ordered) > 1 else ordered * 3
        return cls(median, q1, q3, ordered[0], ordered[-1], len(ordered))


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """``subject`` is to be ``goal`` times as good as ``peer`` or better; without a peer, to take at most ``goal``."""

    what: str
    subject: str
    peer: str | None = None
    metric: str = "wall_ns"
    goal: float
    floor: float | None = None

    def measured(self, measurement: Measurement) -> Spread:
        if self.peer is None:
            return measurement.spread(self.subject, self.metric)
        return measurement.ratio(self.subject, self.peer, self.metric)

    def verdict(self, value: float) -> Literal["goal", "floor", "missed"]:
        def reached(bound: float) -> bool:
            return value <= bound if self.peer is None else value >= bound

        if reached(self.goal):
            return "goal"
        return "floor" if self.floor is not None and reached(self.floor) else "missed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    name: str
    question: str
    arms: tuple[Arm, ...]
    """The subject first: ratios in the table are against it."""
    messages: int
    targets: tuple[Target, ...] = ()
    metric: str = "wall_ns"
    """What the ratio column compares."""
    check_messages: int = 2_000
    pairs: int = 15
    skipped: tuple[str, ...] = ()
    """Peers that are not here, and how to get them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    pairs: int | None = None
    scale: float = 1.0
    loop_factory: LoopFactory = asyncio.new_event_loop
    collector: bool = True
    """Whether the garbage collector runs while a run is timed. It always runs before."""


@dataclass(slots=True)
class Measurement:
    rounds: list[dict[str, Metrics]] = field(default_factory=list)

    def spread(self, arm: str, metric: str) -> Spread:
        return Spread.of([row[arm][metric] for row in self.rounds])

    def ratio(self, subject: str, peer: str, metric: str = "wall_ns") -> Spread:
        """How many times less of the metric the subject took than the peer, round by round."""
        return Spread.of([row[peer][metric] / row[subject][metric] for row in self.rounds])


def verify(benchmark: Benchmark, settings: Settings, recorder: Callable[[], Recorder] = Recorder) -> None:
    """Raise CheckFailed unless every arm hands over every message once, in order where it promises order."""
    for arm in benchmark.arms:
        n = arm.messages(benchmark.check_messages)
        sink = recorder()
        _run(arm.run(n, sink), settings)
        check(f"{benchmark.name}: {arm.name}", sink.seen, arm.expect(n), producers=arm.producers, ordered=arm.ordered)


def measure(benchmark: Benchmark, settings: Settings, into: Measurement | None = None) -> Measurement:
    """Add rounds to a measurement: one unrecorded to warm up, then the paired ones, every other one in reverse."""
    measurement = into or Measurement()
    for turn in range(-1, settings.pairs or benchmark.pairs):
        arms = benchmark.arms if turn % 2 == 0 else benchmark.arms[::-1]
        row = {arm.name: _timed(arm, int(benchmark.messages * settings.scale), settings) for arm in arms}
        if turn >= 0:
            measurement.rounds.append(row)
    return measurement


def _timed(arm: Arm, messages: int, settings: Settings) -> Metrics:
    gc.collect()
    if not settings.collector:
        gc.disable()
    try:
        return _run(arm.run(arm.messages(messages), NOOP), settings)
    finally:
        gc.enable()


def _run(work: Awaitable[Metrics], settings: Settings) -> Metrics:
    loop = settings.loop_factory()
    try:
        return loop.run_until_complete(_awaited(work))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def _awaited(work: Awaitable[Metrics]) -> Coroutine[Any, Any, Metrics]:
    async def wrapped() -> Metrics:
        return await work

    return wrapped()
