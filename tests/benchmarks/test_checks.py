"""Every arm of every benchmark passes its check, and fails it when a message is lost, repeated or out of order."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from benchmarks import (
    backlog,
    batch,
    channels,
    durable_flow,
    durable_growth,
    durable_idle,
    durable_processes,
    durable_publish,
    fanout,
    handlers,
    latency,
    memory,
    remote_path,
    request_reply,
    threads,
    throughput,
    wildcards,
)
from benchmarks._durable import PLACE
from benchmarks._harness import Arm, Benchmark, Settings, verify
from benchmarks._sink import CheckFailed, Recorder

MODULES = (
    backlog,
    batch,
    channels,
    durable_flow,
    durable_growth,
    durable_idle,
    durable_processes,
    durable_publish,
    fanout,
    handlers,
    latency,
    memory,
    remote_path,
    request_reply,
    threads,
    throughput,
    wildcards,
)
MESSAGES = 400
"""Of each check here; every stream gets at least three of them."""
FEW = 48
"""Where each is synced by itself: a busy disk takes milliseconds."""


class Losing(Recorder):
    def record(self, stream: str, item: Any) -> None:
        super().record(stream, item)
        if len(self.seen[stream]) == 3:
            del self.seen[stream][1]


class Repeating(Recorder):
    def record(self, stream: str, item: Any) -> None:
        super().record(stream, item)
        if len(self.seen[stream]) == 3:
            super().record(stream, item)


class Reordering(Recorder):
    def record(self, stream: str, item: Any) -> None:
        super().record(stream, item)
        if len(seen := self.seen[stream]) == MESSAGES // 2 or len(seen) == 2:
            seen.insert(0, seen.pop())


def messages(module: ModuleType, arm: Arm) -> int:
    return FEW if arm.producers == 1 and "durable" in module.__name__ else MESSAGES


def arms() -> list[Any]:
    return [
        pytest.param(
            replace(benchmark, arms=(arm,), check_messages=messages(module, arm)),
            arm,
            id=f"{benchmark.name}: {arm.name}",
        )
        for module in MODULES
        for benchmark in module.BENCHMARKS
        for arm in benchmark.arms
    ]


@pytest.fixture(autouse=True)
def few_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for a full store's checks, each of which leaves it as full as before."""
    monkeypatch.setattr(PLACE, "stored", MESSAGES)


@pytest.mark.parametrize(("benchmark", "arm"), arms())
def test_check(benchmark: Benchmark, arm: Arm) -> None:
    whole = replace(benchmark, arms=(replace(arm, share=1.0),))
    verify(whole, Settings())
    for broken in (Losing, Repeating, *([Reordering] if arm.ordered else [])):
        with pytest.raises(CheckFailed):
            verify(whole, Settings(), broken)
