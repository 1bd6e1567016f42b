"""Thousands of histories, by seed, of the SQLite store beside the reference: see twins.py.

``NEURALCORE_HISTORIES=100000`` runs more of them, ``NEURALCORE_SEED=5000`` begins elsewhere.
"""

from __future__ import annotations

import os

import pytest

from tests.transports.sqlite.histories import history
from tests.transports.sqlite.shrinking import script, shrink
from tests.transports.sqlite.twins import Twins, run

HISTORIES = int(os.environ.get("NEURALCORE_HISTORIES", "1000"))
FIRST = int(os.environ.get("NEURALCORE_SEED", "0"))
BATCH = 100


def check(seed, make=Twins, length=40):
    ops = history(seed, length)
    if run(ops, make) is not None:
        ops = shrink(ops, lambda candidate: run(candidate, make))
        pytest.fail(f"seed {seed}: {run(ops, make)}\nThe script is\n{script(ops)}", pytrace=False)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(FIRST, FIRST + HISTORIES, BATCH))
def test_histories(first):
    for seed in range(first, first + BATCH):
        check(seed)
