"""The store's steps, one after the other on a thread of their own, awaited from a loop."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from typing import TypeVar

import aiosqlite

from neuralcore.messaging.errors import Closed, NotStored
from neuralcore_transports.sqlite.clock import StoreClock
from neuralcore_transports.sqlite.errors import SQL_ERRORS, translated
from neuralcore_transports.sqlite.options import SqliteOptions
from neuralcore_transports.sqlite.store.moment import Moment
from neuralcore_transports.sqlite.store.store import Store
from neuralcore_transports.sqlite.store.transaction import Book

__all__ = ["StoreClient"]

T = TypeVar("T")


class _Connection(aiosqlite.Connection):
    """Runs whole steps, not statements: one hand-over between threads for each transaction."""

    async def run(self, step: Callable[[], T]) -> T:
        result: T = await self._execute(step)  # type: ignore[no-untyped-call]
        return result


class StoreClient:
    """Cancelling whoever awaits a step does not stop it: it happens, or not, as a whole."""

    def __init__(self, options: SqliteOptions, clock: StoreClock, tell: Callable[[str, str], None]) -> None:
        self._options = options
        self._clock = clock
        self._tell = tell
        self._connection: _Connection | None = None
        self._process = os.getpid()
        self._store: Store

    @property
    def here(self) -> bool:
        """False in a child that was forked after it was opened."""
        return os.getpid() == self._process

    async def open(self, connect: Callable[[], sqlite3.Connection]) -> None:
        connection = _Connection(connect, 64)
        connection._thread.daemon = True  # an application that never closes its bus may still end
        await connection  # type: ignore[unused-awaitable] # it answers itself
        self._connection = connection
        await connection.run(self._make_store)

    def _make_store(self) -> None:
        assert self._connection is not None
        book = Book(self._connection._conn, patience=self._options.busy, level=self._options.level)
        self._store = Store(book, self._options.limits(), tell=self._tell)

    async def run(self, step: Callable[[Store, Moment], T]) -> T:
        """One step of the store, now. Raises NeuralCoreError."""
        connection = self._connection
        if not self.here:
            raise NotStored("sqlite", "this bus was opened before the process forked; make a new one in the child")
        if connection is None:
            raise Closed("the SQLite transport")
        try:
            return await connection.run(lambda: step(self._store, self._clock.now()))
        except SQL_ERRORS as error:
            raise translated(error, str(self._options.path), self._options.busy) from error

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self.here:
            await connection.close()
