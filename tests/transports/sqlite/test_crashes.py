"""A crash between any two statements of any step: it has happened as a whole or not at all, and the store goes on."""

from __future__ import annotations

import os
import random
import sqlite3
from itertools import count

import pytest

from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.transport import Outcome, Settlement
from tests.transports.histories import history
from tests.transports.shrinking import script, shrink
from tests.transports.sqlite.insides import contents
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
            if n:
                store = self.after_a_crash(store)
            n += 1
            store.connection.fault = Bomb(n)
            try:
                return step(store)
            except Crash as crash:
                self.crashes += 1
                self.same(f"after a crash at {crash}", before, self.seen_from_outside(store))
            finally:
                store.connection.fault = None

    def after_a_crash(self, store):
        """Who tries next."""
        return store

    def seen_from_outside(self, store):
        assert not store.connection.in_transaction
        return contents(store.connection)


class CrashingProcess(Crashing):
    """On a file, where others look on, and sometimes do what the one that crashed had begun."""

    def __init__(self, **options):
        self.rng = random.Random(7)
        super().__init__(**options)

    def after_a_crash(self, store):
        return self.rng.choice(self.stores) if self.rng.random() < 0.3 else store

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


class Dropped(Twins):
    def crash(self, store, step, at):
        """At a statement that begins so; and whoever asked for it does something else."""

        def fault(statement):
            if statement.startswith(at):
                raise Crash(statement)

        store.connection.fault = fault
        with pytest.raises(Crash):
            step(store)
        store.connection.fault = None


@pytest.fixture
def two(tmp_path):
    made = Dropped(path=str(tmp_path / "bus.db"), processes=2)
    yield made
    made.close()


def test_a_crash_and_somebody_elses_change_are_not_mistaken_for_each_other(two):
    """Both would have been the same version of the registry."""
    one, other = two.stores
    two.crash(one, lambda store: store.declare(ChannelConfig("b"), two.now), "COMMIT")
    other.declare(ChannelConfig("a.x"), two.now)
    assert one.channels() == ["a.x"]


def test_what_a_crashed_step_had_settled_is_not_settled_by_the_next_one(two):
    for op in (
        ("join", 0, "g", ["b"], None),
        ("commit", 0, [{"channel": "b", "n": 0}], []),
        ("fetch", 0, "g", [1], None),
    ):
        two.step(op)
    (theirs,) = (pair[1] for pair in two.slots[0].held)
    ack = [Settlement(theirs, Outcome.ACK)]
    two.crash(two.slots[0].store, lambda store: store.commit((), ack, two.now), "DELETE FROM nc_message")
    two.slots[0].store, two.stores = two.stores[1], two.stores[::-1]
    two.step(("seek", 0, "g", 0, "beginning"))
    two.slots[0].store = two.stores[1]
    two.step(("commit", 0, [{"channel": "b", "n": 1}], []))
    two.step(("fetch", 0, "g", [2], None))
    assert len(two.slots[0].held) == 3
