"""One write transaction at a time on one connection: begun, numbered, committed or undone."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from neuralcore_transports.sqlite.store.registry import Registry

__all__ = ["Book", "is_busy", "text_of"]

_FIRST_NAP: Final = 0.0003
_LONGEST_NAP: Final = 0.004


class Book:
    """What the parts of a store share: the connection, the registry, and the numbers that are given out."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        patience: float = 10.0,
        level: str = "FULL",
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``connection`` begins no transactions by itself and does not wait for locks; waiting is done here, because
        SQLite's own naps are up to 100 ms long. ``patience``: seconds that another process may keep its lock;
        ``level``: ``PRAGMA synchronous`` of durable transactions.
        """
        self.connection = connection
        self.registry = Registry(connection)
        self.execute = connection.execute
        self.executemany = connection.executemany
        self._patience = patience
        self._level = level
        self._relaxed = "OFF" if level == "OFF" else "NORMAL"
        self._sleep = sleep
        self._next = self._stored_next = 0
        self.written = -1
        """``next`` as this connection's last transaction has left it: while nobody else writes, it stays so."""
        self.begun = 0
        """Transactions, reading ones too; each has seen what others wrote before, unless it failed."""
        self._seen = -1
        self._news = False
        self.epoch = 0
        """What was found out about the tables holds for the epoch, but for what the finder itself has done since."""
        self._changes = 0
        self._synced: bool | None = None

    def number(self) -> int:
        """One that was never given out before."""
        given = self._next
        self._next += 1
        return given

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """All of them, also when a text in one is no UTF-8 any more: it then has surrogates in it."""
        try:
            return self.execute(query, parameters).fetchall()
        except sqlite3.OperationalError as error:
            if "decode" not in str(error):
                raise
        self.connection.text_factory = text_of
        try:
            return self.execute(query, parameters).fetchall()
        finally:
            self.connection.text_factory = str

    @contextmanager
    def write(self, *, durable: bool = False) -> Iterator[None]:
        """All of it or nothing. ``durable``: not done before it is on disk, if the connection is set up for that."""
        self._sync(durable)
        self.waiting("BEGIN IMMEDIATE")
        try:
            self._open()
            yield
            self._stamp()
            self.waiting("COMMIT")
            self._seen = self.written = self._next
            self.registry.keep_changes()
        except BaseException:
            self.doubt()
            self.undo()
            raise

    @contextmanager
    def read(self) -> Iterator[None]:
        """One consistent view."""
        self.waiting("BEGIN")
        try:
            self._open()
            yield
        finally:
            self.undo()

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Inside a transaction that somebody else has begun for writing, and will end."""
        self._open()
        try:
            yield
            self._stamp()
        finally:
            self.registry.forget_changes()  # nobody tells whether it will be committed

    def doubt(self) -> None:
        """Begin another epoch."""
        self.epoch += 1

    def undo(self) -> None:
        self.registry.forget_changes()
        if self.connection.in_transaction:
            self.connection.rollback()

    def _open(self) -> None:
        self.begun += 1
        row = self.waiting("SELECT next, registry FROM nc_store").fetchone()
        if row is None or None in row:
            raise sqlite3.DatabaseError("malformed: nc_store has no counters")
        self._next, version = row
        self._stored_next = self._next
        self._changes = self.connection.total_changes
        if self._next != self._seen:
            self._seen = self._next
            self._news = True
            self.doubt()
        self.registry.refresh(version)

    def _stamp(self) -> None:
        """Every transaction that changes something leaves another ``next``: by that others know that there was one."""
        if self.connection.total_changes != self._changes:
            self._next += self._next == self._stored_next
            self.execute("UPDATE nc_store SET next = ?", (self._next,))
        else:
            self._next = self._stored_next  # what was given out is nowhere, and others will give it out

    def take_news(self) -> bool:
        """Whether somebody else has written, as far as the transactions since the last call could see."""
        news, self._news = self._news, False
        return news

    def _sync(self, durable: bool) -> None:
        if durable is not self._synced:
            self.waiting(f"PRAGMA synchronous = {self._level if durable else self._relaxed}")
            self._synced = durable

    def waiting(self, statement: str) -> sqlite3.Cursor:
        """Execute what somebody else's lock may stand in the way of: also the first look at a file does, while another
        process opens or closes it. Raises OperationalError when the lock is kept for too long.
        """
        try:
            return self.execute(statement)
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
        deadline, nap = time.monotonic() + self._patience, _FIRST_NAP
        while True:
            self._sleep(nap)
            nap = min(nap * 1.5, _LONGEST_NAP)
            try:
                return self.execute(statement)
            except sqlite3.OperationalError as error:
                if not is_busy(error) or time.monotonic() > deadline:
                    raise


def text_of(text: bytes) -> str:
    """A ``text_factory``: what is no UTF-8 any more has surrogates in it."""
    return text.decode(errors="surrogateescape")


def is_busy(error: Exception) -> bool:
    """Somebody else has the lock."""
    return "locked" in str(error)  # error codes came with Python 3.11
