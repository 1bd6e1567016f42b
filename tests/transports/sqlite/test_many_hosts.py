"""Many hosts on one SQLite store, by seed: they crash, stall, leave; clocks jump. Nothing acknowledged is lost."""

from __future__ import annotations

import logging
import os

import pytest

from tests.simulation.test_many_hosts import check
from tests.transports.sqlite.insides import check_invariants
from tests.transports.sqlite.model import SqliteModel

SEEDS = int(os.environ.get("NEURALCORE_HISTORIES", "1000")) // 100


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="neuralcore")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_acknowledged_is_lost(seed):
    made = []

    def make(**options):
        made.append(SqliteModel(**options))
        return made[-1]

    check(seed, make)
    (model,) = made
    while model.store.tidy(model.advanced, 1000):
        pass
    check_invariants(model.connection)
    assert not model.damaged
