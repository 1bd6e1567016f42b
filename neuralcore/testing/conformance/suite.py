"""The suite as a pytest class.

from neuralcore.testing.conformance import Harness, TransportConformance

class TestMine(TransportConformance):
    def make_harness(self) -> Harness:
        return MyHarness()
"""

from __future__ import annotations

from typing import Any

import pytest

from neuralcore.testing.conformance.catalogue import catalogue
from neuralcore.testing.conformance.harness import Harness
from neuralcore.testing.conformance.promise import Promise, Unproven
from neuralcore.testing.conformance.runner import prove

__all__ = ["TransportConformance"]


class TransportConformance:
    """Subclass it; every promise of the suite is one test. Skipped: what is not declared, what cannot be driven."""

    setup: str = ""
    """What it runs on, in a few words: the name in a record (``neuralcore.testing.conformance.plugin``)."""
    why_left_out: str = ""
    """Why ``only`` leaves promises out."""

    def against(self) -> str:
        """The product that it runs against and its version, for a record; asked after a test."""
        return ""

    def make_harness(self) -> Harness:
        raise TypeError(f"{type(self).__name__}.make_harness must answer the transport's Harness")

    def only(self, promise: Promise) -> bool:
        """Override it to leave promises out."""
        return True

    @pytest.mark.parametrize("promise", catalogue(), ids=str)
    def test_promise(self, promise: Promise) -> None:
        if not self.only(promise):
            pytest.skip(f"left out: {self.why_left_out}" if self.why_left_out else "left out")
        harness: Any = self.make_harness()
        lacking = promise.missing(harness.capabilities())
        if lacking:
            pytest.skip(f"not declared: {', '.join(lacking)}")
        try:
            prove(promise, harness)
        except Unproven as gap:
            pytest.skip(f"unproven: {gap}")
