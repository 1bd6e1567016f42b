"""The memory transport keeps every promise: it proves the remote path before any store exists."""

from __future__ import annotations

import pytest

from neuralcore.testing.conformance import Harness, MemoryHarness, run
from neuralcore.testing.conformance.suite import TransportConformance


class TestMemory(TransportConformance):
    setup = "memory"

    def against(self) -> str:
        return "the reference transport"

    def make_harness(self) -> Harness:
        return MemoryHarness()


@pytest.mark.parametrize("seed", range(3))
def test_shuffled(seed):
    report = run("memory://", harness=MemoryHarness(seed=seed))
    assert report.ok, f"seed {seed}\n{report}"
    assert report.counts()["pass"] >= 165
