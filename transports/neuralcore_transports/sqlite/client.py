"""The store's steps, one after the other on a thread of their own, awaited from a loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from neuralcore.messaging.errors import Closed, NotStored
from neuralcore_transports.sqlite.clock import StoreClock
from neuralcore_transports.sqlite.connection import StepConnection, Told
from neuralcore_transports.sqlite.opening import connect
from neuralcore_transports.sqlite.options import SqliteOptions
from neuralcore_transports.sqlite.store.moment import Moment
from neuralcore_transports.sqlite.store.store import Store
from neuralcore_transports.sqlite.store.transaction import Book

__all__ = ["StoreClient"]

T = TypeVar("T")


class StoreClient:
    def __init__(
        self,
        options: SqliteOptions,
        clock: StoreClock,
        *,
        tell: Callable[[str, str], None],
        news: Callable[[], None],
    ) -> None:
        """``news`` is called, on the loop, when somebody else turns out to have written."""
        self._options = options
        self._clock = clock
        self._tell = tell
        self._news = news
        self._connection: StepConnection | None = None
        self._process = os.getpid()
        self._book: Book
        self._store: Store

    @property
    def here(self) -> bool:
        """False in a child that was forked after it was opened."""
        return os.getpid() == self._process

    async def open(self) -> None:
        """Raises NeuralCoreError."""
        options = self._options
        connection = StepConnection(options, partial(connect, options.path))
        await connection.open()
        self._connection = connection
        self._book = Book(connection.raw, patience=options.busy, level=options.level)
        self._store = Store(self._book, options.limits(), tell=self._tell)

    async def run(self, step: Callable[[Store, Moment], T]) -> T:
        """One step of the store, now. Raises NeuralCoreError."""
        return await self._open_connection().run(self._step(step))

    def post(self, step: Callable[[Store, Moment], T], told: Told[T]) -> None:
        """The same for whoever does not wait; see ``StepConnection.post``."""
        self._open_connection().post(self._step(step), told)

    def _open_connection(self) -> StepConnection:
        if not self.here:
            raise NotStored("sqlite", "this bus was opened before the process forked; make a new one in the child")
        if self._connection is None:
            raise Closed("the SQLite transport")
        return self._connection

    def _step(self, step: Callable[[Store, Moment], T]) -> Callable[[], T]:
        loop = asyncio.get_running_loop()

        def stepped() -> T:
            result = step(self._store, self._clock.now())
            if self._book.take_news():
                loop.call_soon_threadsafe(self._news)
            return result

        return stepped

    @property
    def written(self) -> int:
        """See ``Book.written``. From any thread."""
        return self._book.written

    @property
    def begun(self) -> int:
        """See ``Book.begun``. From any thread."""
        return self._book.begun

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self.here:
            await connection.close()
