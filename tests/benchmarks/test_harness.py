"""The harness computes what its tables claim."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks._harness import Arm, Benchmark, Measurement, Settings, Spread, Target, Watch, measure, verify
from benchmarks._report import record, render, render_targets
from benchmarks._sink import CheckFailed, Sink


def scripted(name: str, values: list[float], calls: list[str] | None = None) -> Arm:
    """An arm that answers one of the values at each run; the first is the warm-up's."""
    answers: Iterator[float] = iter(values)

    async def run(n: int, sink: Sink) -> dict[str, float]:
        if calls is not None:
            calls.append(name)
        return {"wall_ns": next(answers)}

    return Arm(name=name, run=run)


def benchmark_of(*arms: Arm, **fields: Any) -> Benchmark:
    return Benchmark(name="scripted", question="Which is faster?", arms=arms, messages=100, **fields)


def test_ratios_are_taken_pair_by_pair() -> None:
    benchmark = benchmark_of(scripted("subject", [9, 1, 2, 4]), scripted("peer", [9, 10, 2, 8]))
    ratio = measure(benchmark, Settings(pairs=3)).ratio("subject", "peer")
    assert (ratio.low, ratio.median, ratio.high, ratio.count) == (1.0, 2.0, 10.0, 3)  # of medians it would be 4


def test_the_warm_up_is_not_recorded_and_every_other_round_is_reversed() -> None:
    calls: list[str] = []
    benchmark = benchmark_of(scripted("a", [1000, 1, 1], calls), scripted("b", [1000, 1, 1], calls))
    measurement = measure(benchmark, Settings(pairs=2))
    assert calls == ["b", "a", "a", "b", "b", "a"]
    assert measurement.spread("a", "wall_ns").high == 1


def test_more_pairs_are_added_to_a_measurement() -> None:
    benchmark = benchmark_of(scripted("a", [0, 1, 1, 0, 5, 5]), scripted("b", [0, 1, 1, 0, 5, 5]))
    measurement = measure(benchmark, Settings(pairs=2))
    assert measure(benchmark, Settings(pairs=2), measurement) is measurement
    assert [row["a"]["wall_ns"] for row in measurement.rounds] == [1, 1, 5, 5]


def test_spread() -> None:
    assert Spread.of([5, 1, 2, 4, 3]) == Spread(median=3, q1=2, q3=4, low=1, high=5, count=5)
    assert Spread.of([7]) == Spread(7, 7, 7, 7, 7, 1)


@pytest.mark.parametrize(("value", "verdict"), [(2.5, "goal"), (2.49, "floor"), (2.0, "floor"), (1.99, "missed")])
def test_a_ratio_is_judged_upwards(value: float, verdict: str) -> None:
    assert Target(what="", subject="a", peer="b", goal=2.5, floor=2.0).verdict(value) == verdict


@pytest.mark.parametrize(("value", "verdict"), [(199.0, "goal"), (200.0, "goal"), (200.1, "missed")])
def test_a_metric_without_a_peer_is_judged_downwards(value: float, verdict: str) -> None:
    assert Target(what="", subject="a", metric="bytes", goal=200.0).verdict(value) == verdict


def test_a_watch_counts_per_message() -> None:
    cpu = iter([100, 400])
    with Watch(lambda: next(cpu)) as watch:
        pass
    watch.wall_ns = 1_000
    assert watch.per(10) == {"wall_ns": 100.0, "cpu_ns": 30.0}


@pytest.mark.parametrize("collector", [True, False])
def test_the_collector_is_as_stated_while_timed_and_on_afterwards(collector: bool) -> None:
    seen = []

    async def run(n: int, sink: Sink) -> dict[str, float]:
        seen.append(gc.isenabled())
        return {"wall_ns": 1.0}

    measure(benchmark_of(Arm(name="a", run=run)), Settings(pairs=1, collector=collector))
    assert seen == [collector] * 2
    assert gc.isenabled()


def test_a_slow_peer_gets_its_share() -> None:
    counts = []

    async def run(n: int, sink: Sink) -> dict[str, float]:
        counts.append(n)
        return {"wall_ns": 1.0}

    measure(benchmark_of(Arm(name="a", run=run), Arm(name="b", run=run, share=0.1)), Settings(pairs=1, scale=2))
    assert sorted(set(counts)) == [20, 200]


def handing_over(numbers: list[int], **fields: Any) -> Benchmark:
    async def run(n: int, sink: Sink) -> dict[str, float]:
        handle = sink.awaited()
        for i in numbers:
            await handle({"i": i})
        return {}

    return benchmark_of(Arm(name="a", run=run, **fields), check_messages=4)


@pytest.mark.parametrize(
    "numbers",
    [[0, 1, 2], [0, 1, 2, 3, 3], [0, 2, 1, 3], [0, 1, 2, 7], []],
    ids=["lost", "repeated", "reordered", "changed", "nothing"],
)
def test_what_is_not_handed_over_once_and_in_order_is_refused(numbers: list[int]) -> None:
    with pytest.raises(CheckFailed, match="scripted: a"):
        verify(handing_over(numbers), Settings())


def test_what_is_handed_over_once_and_in_order_passes() -> None:
    verify(handing_over([0, 1, 2, 3]), Settings())


def test_the_order_of_each_producer_counts_where_there_are_several() -> None:
    verify(handing_over([2, 0, 3, 1], producers=2), Settings())
    with pytest.raises(CheckFailed, match="position 0"):
        verify(handing_over([3, 0, 2, 1], producers=2), Settings())


def test_an_unordered_arm_may_reorder_but_not_lose() -> None:
    verify(handing_over([2, 0, 3, 1], ordered=False), Settings())
    with pytest.raises(CheckFailed):
        verify(handing_over([2, 0, 3], ordered=False), Settings())


def test_a_stream_that_nobody_published_to_is_refused() -> None:
    with pytest.raises(CheckFailed, match="nobody published"):
        verify(handing_over([0], expect=lambda n: {"other": [0]}), Settings())


def test_the_record_and_its_tables_say_what_was_measured() -> None:
    target = Target(what="twice the peer", subject="subject", peer="peer", goal=2.0)
    benchmark = benchmark_of(
        scripted("subject", [9, 100, 100]), scripted("peer", [9, 150, 250]), targets=(target,), skipped=("no others",)
    )
    result = record(benchmark, measure(benchmark, Settings(pairs=2)))
    assert result["ratios"]["peer"]["wall_ns"]["median"] == 2.0
    assert result["targets"][0]["verdict"] == "goal"
    assert len(result["rounds"]) == result["pairs"] == 2
    assert "2.00 (1.75 to 2.25)" in render(result)
    assert render(result).endswith("no others")
    assert "goal reached" in render_targets(result["targets"])


def test_an_absolute_target_reads_its_own_metric() -> None:
    measurement = Measurement([{"a": {"bytes": 10.0}}, {"a": {"bytes": 30.0}}])
    assert Target(what="", subject="a", metric="bytes", goal=200.0).measured(measurement).median == 20.0
