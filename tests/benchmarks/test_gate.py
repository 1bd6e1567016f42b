"""The gate lets noise try again, stops a regression, and measures what it names."""

from __future__ import annotations

import pytest

from benchmarks import gate
from benchmarks._harness import Arm, Benchmark, Settings
from benchmarks._sink import Sink

PAIRS = 3


def bound(subject: list[float], peer: float = 100.0) -> gate.Bound:
    """At least 1.5 times as fast as a steady peer; each attempt warms up once."""
    times = iter(subject)

    async def measured(n: int, sink: Sink) -> dict[str, float]:
        return {"wall_ns": next(times)}

    async def steady(n: int, sink: Sink) -> dict[str, float]:
        return {"wall_ns": peer}

    arms = (Arm(name="subject", run=measured), Arm(name="peer", run=steady))
    return gate.Bound(
        benchmark=Benchmark(name="scripted", question="?", arms=arms, messages=1), peer="peer", at_least=1.5
    )


def attempts(*each: float) -> list[float]:
    return [time for time in each for _ in range(PAIRS + 1)]


def test_a_bound_that_holds_needs_one_attempt() -> None:
    holds, ratio = gate.judge(bound(attempts(50)), Settings(pairs=PAIRS))
    assert holds
    assert (ratio.median, ratio.count) == (2.0, PAIRS)


def test_a_noisy_miss_is_outvoted_by_more_pairs() -> None:
    noisy = [0, 100, 100, 50, *attempts(50)]
    holds, ratio = gate.judge(bound(noisy), Settings(pairs=PAIRS))
    assert holds
    assert (ratio.median, ratio.count) == (2.0, 2 * PAIRS)


def test_a_regression_stays_one_and_attempts_are_bounded() -> None:
    holds, ratio = gate.judge(bound(attempts(*[80] * gate.ATTEMPTS)), Settings(pairs=PAIRS))
    assert not holds
    assert (ratio.median, ratio.count) == (1.25, gate.ATTEMPTS * PAIRS)


@pytest.mark.parametrize("named", gate.BOUNDS, ids=lambda named: f"{named.benchmark.name}: {named.peer}")
def test_every_bound_names_an_arm_and_is_below_the_target(named: gate.Bound) -> None:
    subject, peer = named.pair().arms
    assert peer.name == named.peer
    for target in named.benchmark.targets:
        if (target.subject, target.peer) == (subject.name, peer.name):
            assert named.at_least < (target.floor or target.goal)
