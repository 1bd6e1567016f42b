"""What a new process finds in a store, by the store's own logic: every message that a group still gets."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from neuralcore._core import Clock
from neuralcore.messaging.errors import NeuralCoreError
from neuralcore.messaging.transport import Delivery, Demand, Interest, Outcome, Settlement
from neuralcore_transports.sqlite.clock import StoreClock
from neuralcore_transports.sqlite.errors import SQL_ERRORS, translated
from neuralcore_transports.sqlite.opening import open_book, prepare
from neuralcore_transports.sqlite.options import SqliteOptions
from neuralcore_transports.sqlite.store.fetch import Reader
from neuralcore_transports.sqlite.store.store import Store

__all__ = ["Survivors", "survivors"]

PATIENCE = 10.0


@dataclass
class Survivors:
    deliveries: list[Delivery] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    """What the store said of damaged messages."""
    broken: int = 0
    """Commits behind the place where the log breaks off."""
    error: NeuralCoreError | None = None
    """What it raised, after which no more was read."""
    damage: str = ""
    """By SQLite's own check."""

    @property
    def ids(self) -> list[str]:
        return [delivery.envelope.id for delivery in self.deliveries]


def survivors(database: Path, *, group: str = "g", channel: str = "work", check: bool = True) -> Survivors:
    """All others that used the store are dead. The messages that were found are settled."""
    found = Survivors()
    options = SqliteOptions(database, durability="off", busy=1.0)
    try:
        with _watched(options, found) as (store, clock):
            _read(store, clock, group, channel, found)
    except NeuralCoreError as error:
        found.error = error
    if check:
        found.damage = _damage(database)
    return found


@contextmanager
def _watched(options: SqliteOptions, found: Survivors) -> Iterator[tuple[Store, StoreClock]]:
    clock = StoreClock(Clock())
    found.broken = prepare(options, clock)
    book = open_book(options)
    deadline = time.monotonic() + PATIENCE
    book.connection.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)
    try:
        yield Store(book, options.limits(), tell=lambda where, what: found.told.append(what)), clock
    except SQL_ERRORS as error:
        raise translated(error, str(options.path), options.busy) from error
    finally:
        book.connection.close()


def _read(store: Store, clock: StoreClock, group: str, channel: str, found: Survivors) -> None:
    owner = store.connect("judge", clock.boot, clock.now())
    for other, _ in store.others(owner):
        store.give_up(other, clock.now())
    reader = Reader(owner, group)
    store.update(reader, [Interest(id=1, pattern=channel)], clock.now())
    again = True
    while again:
        deliveries, again, *_ = store.fetch(reader, {1: Demand(1000)}, clock.now())
        found.deliveries += deliveries
        store.commit([], [Settlement(each, Outcome.ACK) for each in deliveries], clock.now())
        again = again or bool(deliveries)


def _damage(database: Path) -> str:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        try:
            rows = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        except SQL_ERRORS as error:
            return str(error)
    return "" if rows == ["ok"] else "; ".join(map(str, rows[:3]))
