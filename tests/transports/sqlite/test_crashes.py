"""A crash between any two statements of any step: it has happened as a whole or not at all, and the store goes on."""

from __future__ import annotations

import os
import sqlite3
from itertools import count

import pytest

from tests.transports.sqlite.histories import history
from tests.transports.sqlite.insides import contents
from tests.transports.sqlite.shrinking import script, shrink
from tests.transports.sqlite.twins import Twins, run

HISTORIES = int(os.environ.get("NEURALCORE_HISTORIES", "1000")) // 15
FIRST = int(os.environ.get("NEURALCORE_SEED", "0"))


class Crash(BaseException):
    """Whatever ends a step: also what no ``except Exception`` sees."""


class Bomb:
    """Goes off at the n-th statement."""

    def __init__(self, n):
        self.left = n

    def __call__(self, statement):
        self.left -= 1
        if not self.left:
            raise Crash(statement)


class Crashing(Twins):
    """Every step crashes at its first statement, at its second … at its COMMIT, and then happens."""

    crashes = 0

    def sql(self, store, step):
        before = contents(store.connection)
        n = 0
        while True:
            n += 1
            store.connection.fault = Bomb(n)
            try:
                return step(store)
            except Crash as crash:
                self.crashes += 1
                self.same(f"after a crash at {crash}", before, self.seen_from_outside(store))
            finally:
                store.connection.fault = None

    def seen_from_outside(self, store):
        assert not store.connection.in_transaction
        return contents(store.connection)


class CrashingProcess(Crashing):
    """On a file, where others look on."""

    def seen_from_outside(self, store):
        own = super().seen_from_outside(store)
        for other in self.stores:
            self.same("another connection", own, contents(other.connection))
        return own


def check(seed, make):
    ops = history(seed)
    if run(ops, make) is not None:
        ops = shrink(ops, lambda candidate: run(candidate, make))
        pytest.fail(f"seed {seed}: {run(ops, make)}\nThe script is\n{script(ops)}", pytrace=False)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(FIRST, FIRST + HISTORIES))
def test_a_step_happens_as_a_whole_or_not_at_all(seed):
    check(seed, Crashing)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(FIRST, FIRST + HISTORIES // 5))
def test_others_see_it_as_a_whole_or_not_at_all(seed, tmp_path):
    numbers = count()
    check(seed, lambda: CrashingProcess(path=str(tmp_path / f"{next(numbers)}.db"), processes=2))


def test_the_bombs_do_go_off():
    twins = Crashing()
    for op in history(3):
        twins.step(op)
    twins.close()
    assert twins.crashes > 500


class Busy:
    """Somebody else has the lock at every third COMMIT."""

    def __init__(self):
        self.commits = 0

    def __call__(self, statement):
        if statement == "COMMIT":
            self.commits += 1
            if self.commits % 3:
                raise sqlite3.OperationalError("database is locked")


class Waiting(Twins):
    def sql(self, store, step):
        store.connection.fault = Busy()
        try:
            return step(store)
        finally:
            store.connection.fault = None


def test_a_commit_waits_for_the_lock():
    check(1, Waiting)
