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


def reordering(share: int) -> type[Recorder]:
    """Moves the first message that is not its producer's first before all others."""

    class Reordering(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.moved: set[str] = set()

        def record(self, stream: str, item: Any) -> None:
            super().record(stream, item)
            *before, last = seen = self.seen[stream]
            if stream not in self.moved and any(i // share == last // share for i in before):
                self.moved.add(stream)
                seen.insert(0, seen.pop())

    return Reordering


def messages(module: ModuleType, arm: Arm) -> int:
    return max(FEW, 3 * arm.producers) if "durable" in module.__name__ else MESSAGES


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
    share = MESSAGES if arm.producers == 1 else benchmark.check_messages // arm.producers
    for broken in (Losing, Repeating, *([reordering(share)] if arm.ordered else [])):
        with pytest.raises(CheckFailed):
            verify(whole, Settings(), broken)
