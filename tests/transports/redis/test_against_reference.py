"""Histories, by seed, of the Redis transport beside the reference: see twins.py.

``NEURALCORE_HISTORIES=2000`` runs more of them, ``NEURALCORE_SEED=5000`` begins elsewhere.
"""

from __future__ import annotations

import os

import pytest

from tests.servers.missing import ALL_REDIS_VERSIONS
from tests.transports.histories import history
from tests.transports.redis.twins import run
from tests.transports.shrinking import script, shrink

HISTORIES = int(os.environ.get("NEURALCORE_HISTORIES", "100"))
FIRST = int(os.environ.get("NEURALCORE_SEED", "0"))
BATCH = 20


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("redis_server", ALL_REDIS_VERSIONS, indirect=True)
@pytest.mark.parametrize("first", range(FIRST, FIRST + HISTORIES, BATCH))
def test_histories(redis_server, first):
    url = redis_server.url()
    for seed in range(first, first + BATCH):
        ops = history(seed)
        if run(ops, url) is not None:
            ops = shrink(ops, lambda candidate: run(candidate, url))
            pytest.fail(f"seed {seed}: {run(ops, url)}\nThe script is\n{script(ops)}", pytrace=False)
