"""What is asked of the flow and the latency of every store: how large messages are, who publishes, who handles."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from operator import itemgetter
from typing import Any

from benchmarks._harness import Arm, Benchmark, Metrics, Target
from benchmarks._redis import SIZES, Payload, Text
from benchmarks._sink import CheckFailed, Sink

__all__ = [
    "CONCURRENCY",
    "LOADS",
    "Load",
    "above_ideal",
    "at_rate",
    "backlog_benchmark",
    "flow_benchmark",
    "latencies",
    "latency_benchmark",
    "napping",
    "sleepers",
]

CONCURRENCY = 20
"""Handlers at once, where they sleep."""
MANY = 16
NAP_MS = 5
SMALL = next(iter(SIZES))
RATE = 200
"""Messages a second, of all publishers together, where latency is asked for."""
SLEEP = "no store: asyncio.sleep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    size: str = SMALL
    publishers: int = 1
    nap_ms: int = 0
    """For how long each handler sleeps."""

    @property
    def text(self) -> Text:
        return SIZES[self.size]

    @property
    def large(self) -> bool:
        return self.size != SMALL

    @property
    def plain(self) -> bool:
        return self == Load()

    def parts(self, n: int) -> list[list[Payload]]:
        return self.text.shares(n, self.publishers)

    @property
    def of_size(self) -> str:
        """What is added to a name."""
        return f", {self.size}" if self.large else ""

    @property
    def in_words(self) -> str:
        """The same, for names that say only in what a load is not plain."""
        publishers = f", {self.publishers} at once" if self.publishers > 1 else ""
        return publishers + (f", {self.nap_ms} ms" if self.nap_ms else "") + self.of_size

    @property
    def question(self) -> str:
        """The end of one."""
        handlers = (
            f"{CONCURRENCY} handlers at once of {self.nap_ms} ms" if self.nap_ms else "a handler that does nothing"
        )
        return f"with {self.publishers} publishers and {handlers}?"


LOADS = tuple(
    Load(size=size, publishers=publishers, nap_ms=nap_ms)
    for size, nap_ms, publishers in product(SIZES, (0, NAP_MS), (1, MANY))
)


# Flow


def above_ideal(wall_ns: float, nap_ms: int) -> dict[str, float]:
    """By how much that is more than handlers that sleep, and nothing else, take for a message."""
    return {"above_ideal_%": (wall_ns * CONCURRENCY / (nap_ms * 1e6) - 1) * 100} if nap_ms else {}


def napping(handler: Callable[[Any], Awaitable[None]], nap_ms: int) -> Callable[[Any], Awaitable[None]]:
    """The handler, which then sleeps."""

    async def handle(item: Any) -> None:
        await handler(item)
        await asyncio.sleep(nap_ms / 1000)

    return handle


def sleepers(meter: Callable[[], Any], nap_ms: int, *without: str) -> Arm:
    """As many tasks as there are handlers, and nothing else: the loop's timers wake them a little late. ``without``:
    metrics of the others that are 0 here.
    """

    async def run(n: int, sink: Sink) -> Metrics:
        numbers, handle = iter(range(n)), sink.plain()

        async def sleeper() -> None:
            for i in numbers:
                handle({"i": i})
                await asyncio.sleep(nap_ms / 1000)

        with (timed := meter()):
            await asyncio.gather(*(sleeper() for _ in range(CONCURRENCY)))
        return {**timed.per(n), **dict.fromkeys(without, 0.0), **above_ideal(timed.wall_ns / n, nap_ms)}

    return Arm(name=SLEEP, run=run)


def flow_benchmark(
    store: str, load: Load, arms: Sequence[Arm], goals: Mapping[str, float], skipped: tuple[str, ...]
) -> Benchmark:
    """``goals``: times which peers, with handlers that do nothing."""
    return Benchmark(
        name=f"{store} flow, {load.publishers} at once, {load.nap_ms} ms{load.of_size}",
        question=f"What does a message of {load.size} cost from publish to settled {load.question}",
        arms=tuple(arms),
        messages=_messages(load),
        check_messages=160,
        targets=_nap_targets(load) if load.nap_ms else _flow_targets(load, arms, goals),
        skipped=skipped,
    )


def _messages(load: Load) -> int:
    """As many as take long enough; handlers that sleep take as long for large ones."""
    if load.nap_ms:
        return 2_000
    return (2_000 if load.publishers == 1 else 8_000) // (2 if load.large else 1)


def _flow_targets(load: Load, arms: Sequence[Arm], goals: Mapping[str, float]) -> tuple[Target, ...]:
    what = f"{load.publishers} to settled{load.of_size}, times"
    judged = [arm.name for arm in arms if arm.name in goals]
    return tuple(Target(what=f"{what} {name}", subject="bus", peer=name, goal=goals[name]) for name in judged)


def _nap_targets(load: Load) -> tuple[Target, ...]:
    if load.publishers == 1:
        return ()
    what = f"{load.publishers} to handlers of {load.nap_ms} ms{load.of_size}"
    return (
        Target(what=f"{what}, % above ideal", subject="bus", metric="above_ideal_%", goal=10.0),
        Target(what=f"{what}, times the speed of {SLEEP}", subject="bus", peer=SLEEP, goal=round(1 / 1.1, 2)),
    )


def backlog_benchmark(store: str, arms: Sequence[Arm]) -> Benchmark:
    """Publishing, which takes part of the machine from all of them in the flow, is over when this begins."""
    what = f"a backlog to handlers of {NAP_MS} ms"
    return Benchmark(
        name=f"{store} consume, {NAP_MS} ms",
        question=f"How near to the ideal are {CONCURRENCY} handlers at once of {NAP_MS} ms over a backlog?",
        arms=tuple(arms),
        messages=4_000,
        check_messages=160,
        targets=(
            Target(what=f"{what}, % above ideal", subject="bus", metric="above_ideal_%", goal=10.0),
            Target(what=f"{what}, times the speed of {SLEEP}", subject="bus", peer=SLEEP, goal=round(1 / 1.1, 2)),
        ),
    )


# Latency


async def at_rate(
    publish: Callable[[Payload], Awaitable[object]], parts: Sequence[Sequence[Payload]]
) -> dict[int, int]:
    """When each was handed to its publish, by its number: the publishers in turn, at equal distances. Late only when
    the same publisher's one before took longer than the pause.
    """
    start, left = time.monotonic(), {}

    async def publisher(first: int, part: Sequence[Payload]) -> None:
        for turn, payload in enumerate(part):
            due = start + (first + turn * len(parts)) / RATE
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            left[payload["i"]] = time.monotonic_ns()
            await publish(payload)

    await asyncio.gather(*(publisher(first, part) for first, part in enumerate(parts)))
    return left


def latencies(left: dict[int, int], told: Any) -> Metrics:
    """From what was published when, and what the consuming process tells. ``warm``: without the first sixth, which can
    be all that p99 tells of.
    """
    came = dict(zip(told["numbers"], told["moments"], strict=True))
    if came.keys() != left.keys():
        raise CheckFailed("other messages were handled than those that were published, or with another text")
    times = [came[i] - moment for i, moment in sorted(left.items(), key=itemgetter(1))]
    cuts = _percentiles(times)
    return {
        "p50_ns": cuts[49],
        "p90_ns": cuts[89],
        "p99_ns": cuts[98],
        "warm_p99_ns": _percentiles(times[len(times) // 6 :])[98],
    }


def _percentiles(times: Sequence[int]) -> list[float]:
    return statistics.quantiles(times, n=100, method="inclusive")


def latency_benchmark(store: str, load: Load, arms: Sequence[Arm], skipped: tuple[str, ...]) -> Benchmark:
    return Benchmark(
        name=f"{store} latency at {RATE}/s{load.in_words}",
        question=f"How long does a message of {load.size} take from publish to its handler {load.question}",
        arms=tuple(arms),
        messages=600,
        metric="p50_ns",
        check_messages=60,
        targets=tuple(
            Target(
                what=f"latency {name}{load.in_words}, times raw's speed",
                subject="bus",
                peer="raw",
                metric=f"{name}_ns",
                goal=round(1 / 1.5, 2),
            )
            for name in ("p50", "p99")
        ),
        skipped=skipped,
    )
