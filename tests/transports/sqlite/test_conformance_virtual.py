"""The store's logic keeps every promise, in virtual time, before any thread or disk is involved."""

from __future__ import annotations

import pytest

from neuralcore.testing.conformance import Harness, MemoryHarness, run
from neuralcore.testing.conformance.suite import TransportConformance
from tests.transports.sqlite.model import SqliteModel


class SqliteLogicHarness(MemoryHarness):
    name = "sqlite, its logic"

    async def begin(self):
        self.store = SqliteModel()


class TestLogic(TransportConformance):
    def make_harness(self) -> Harness:
        return SqliteLogicHarness()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(2))
def test_shuffled(seed):
    report = run("memory://", harness=SqliteLogicHarness(seed=seed))
    assert report.ok, f"seed {seed}\n{report}"
