"""A store as a file whose every message is known, to be damaged."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from neuralcore._core import Clock
from neuralcore.messaging.transport import Delivery, Demand, Envelope, Interest, Outcome, Settlement
from neuralcore_transports.sqlite.clock import StoreClock
from neuralcore_transports.sqlite.opening import open_book, prepare
from neuralcore_transports.sqlite.options import SqliteOptions
from neuralcore_transports.sqlite.store.fetch import Reader
from neuralcore_transports.sqlite.store.store import Store

__all__ = ["Maker", "body", "copy", "envelope"]


def body(number: int) -> bytes:
    """Some of them are too long for one page."""
    return f'"{number}:'.encode() + b"." * (number * 37 % 200 if number % 10 else 12_000) + b'"'


def envelope(number: int, *, channel: str = "work") -> Envelope:
    return Envelope(id=f"m-{number}", channel=channel, body=body(number), key=f"k{number}" if number % 7 == 0 else None)


class Maker:
    """One client of a store, without a loop, a thread or a keeper: nothing is checkpointed before ``close``."""

    def __init__(self, database: Path) -> None:
        options = SqliteOptions(database, durability="off")
        self._clock = StoreClock(Clock())
        prepare(options, self._clock)
        self._book = open_book(options)
        self.store = Store(self._book, options.limits())
        self._owner = self.store.connect("maker", self._clock.boot, self._clock.now())
        self._reader = Reader(self._owner, "g")
        self.store.update(self._reader, [Interest(id=1, pattern="work")], self._clock.now())

    def publish(self, *envelopes: Envelope) -> None:
        self.store.commit(envelopes, [], self._clock.now())

    def take(self, count: int) -> list[Delivery]:
        return self.store.fetch(self._reader, {1: Demand(count)}, self._clock.now()).deliveries

    def settle(self, deliveries: Sequence[Delivery], outcome: Outcome = Outcome.ACK) -> None:
        self.store.commit([], [Settlement(each, outcome) for each in deliveries], self._clock.now())

    def close(self, *, checkpoint: bool = True) -> None:
        if checkpoint:
            self._book.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._book.connection.close()


def copy(database: Path, folder: Path) -> Path:
    """As another process would find it after a crash: the log beside the file, the shared memory not."""
    folder.mkdir(parents=True)
    for suffix in ("", "-wal"):
        source = database.with_name(database.name + suffix)
        if source.exists():
            shutil.copyfile(source, folder / source.name)
    return folder / database.name
