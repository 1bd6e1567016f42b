"""The native transport keeps every promise that it declares, whatever the order in which ready things run."""

from __future__ import annotations

import pytest

from neuralcore._core import IMPLEMENTATION
from neuralcore.testing.conformance import Harness, NativeHarness, Verdict, run
from neuralcore.testing.conformance.suite import TransportConformance


class TestNative(TransportConformance):
    setup = IMPLEMENTATION

    def against(self) -> str:
        return "the core in Rust" if IMPLEMENTATION == "native" else "the core in Python"

    def make_harness(self) -> Harness:
        return NativeHarness()


@pytest.mark.parametrize("seed", range(3))
def test_shuffled(seed):
    report = run("native://", harness=NativeHarness(seed=seed))
    assert report.ok, f"seed {seed}\n{report}"
    assert report.counts()[Verdict.PASS.value] >= 85
