"""Thousands of histories, by seed, of the SQLite store beside the reference: see twins.py.

``NEURALCORE_HISTORIES=100000`` runs more of them, ``NEURALCORE_SEED=5000`` begins elsewhere.
"""

from __future__ import annotations

import os
from itertools import count

import pytest

from neuralcore_transports.sqlite.store.fetch import Fetcher
from tests.transports.histories import history
from tests.transports.shrinking import script, shrink
from tests.transports.sqlite.twins import Twins, run

HISTORIES = int(os.environ.get("NEURALCORE_HISTORIES", "1000"))
FIRST = int(os.environ.get("NEURALCORE_SEED", "0"))
BATCH = 100


def check(seed, make=Twins, length=40, *, calm=False):
    ops = history(seed, length, calm=calm)
    if run(ops, make) is not None:
        ops = shrink(ops, lambda candidate: run(candidate, make))
        pytest.fail(f"seed {seed}: {run(ops, make)}\nThe script is\n{script(ops)}", pytrace=False)


def batches(histories):
    """The first seeds."""
    return pytest.mark.parametrize("first", range(FIRST, FIRST + histories, BATCH))


@pytest.mark.slow
@pytest.mark.timeout(600)
@batches(HISTORIES)
def test_histories(first):
    for seed in range(first, first + BATCH):
        check(seed)


@pytest.mark.slow
@pytest.mark.timeout(600)
@batches(HISTORIES // 5)
def test_a_little_at_a_time(first):
    """Every limit that keeps a transaction short is as low as it can be."""
    for seed in range(first, first + BATCH):
        check(seed, lambda: Twins(most=1, beside=1, looks=1))


@pytest.mark.slow
@pytest.mark.timeout(600)
@batches(HISTORIES // 5)
def test_two_processes_take_turns(first, tmp_path):
    """Two stores on one file: what one of them remembers of it is out of date at every turn."""
    numbers = count()
    for seed in range(first, first + BATCH):
        check(seed, lambda: Twins(path=str(tmp_path / f"{next(numbers)}.db"), processes=2))


@pytest.mark.slow
@pytest.mark.timeout(600)
@batches(HISTORIES // 5)
def test_long_ones(first):
    for seed in range(first, first + BATCH // 5):
        check(seed, length=200)


class Joined(Twins):
    """An application's own transactions: the first is rolled back, the second one is committed."""

    def commit_to(self, store, envelopes, settlements):
        for end in ("ROLLBACK", "COMMIT"):
            store.connection.execute("BEGIN IMMEDIATE")
            result = store.joined(envelopes, settlements, self.now)
            store.connection.execute(end)
        return result


@pytest.mark.slow
@pytest.mark.timeout(600)
@batches(HISTORIES // 5)
def test_commits_inside_transactions_of_an_application(first):
    for seed in range(first, first + BATCH):
        check(seed, Joined)


class HandingOut(Twins):
    """Every commit fetches for a consumer of the same process."""

    limits = (1, 2, 3)

    def commit(self, number, publishes, settlements):
        readers = list(self.slots[number].readers)
        if readers:
            group = readers[self.turn % len(readers)]
            limit = self.limits[self.turn % len(self.limits)]
            self.exchange(number, group, [limit], None, publishes, settlements)
        else:
            super().commit(number, publishes, settlements)


@pytest.mark.slow
@pytest.mark.timeout(600)
@batches(HISTORIES // 5)
def test_commits_that_hand_out(first):
    for seed in range(first, first + BATCH):
        check(seed, HandingOut)


class HandingAllOut(HandingOut):
    limits = (100, 100, 100, 2)


@pytest.mark.slow
@pytest.mark.timeout(600)
@batches(HISTORIES // 5)
def test_commits_that_hand_out_what_they_store(first, monkeypatch, tmp_path):
    """Whoever has nothing else to take gets what was stored without its being read."""
    handed_over = 0
    hand_over = Fetcher._hand_over

    def counted(self, *args):
        nonlocal handed_over
        deliveries = hand_over(self, *args)
        handed_over += len(deliveries)
        return deliveries

    monkeypatch.setattr(Fetcher, "_hand_over", counted)
    for seed in range(first, first + BATCH):
        check(seed, HandingAllOut, calm=True)
        numbered = tmp_path / f"{seed}.db"
        check(seed, lambda: HandingAllOut(path=str(numbered), processes=2), calm=True)  # noqa: B023
    assert handed_over > BATCH
