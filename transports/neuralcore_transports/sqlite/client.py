"""The store's steps, one after the other on a thread of their own, awaited from a loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from neuralcore.messaging.errors import Closed, NotStored
from neuralcore_transports.sqlite.clock import StoreClock
from neuralcore_transports.sqlite.connection import StepConnection
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
        self._left: asyncio.Future[None] | None = None
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
        if not self.here:
            raise NotStored("sqlite", "this bus was opened before the process forked; make a new one in the child")
        if self._connection is None:
            raise Closed("the SQLite transport")
        try:
            result, news = await self._connection.run(
                lambda: (step(self._store, self._clock.now()), self._book.take_news())
            )
        except asyncio.CancelledError:
            self._look_after(self._connection)
            raise
        if news:
            self._news()
        return result

    def _look_after(self, connection: StepConnection) -> None:
        """A step whose caller is gone happens all the same, and what it has seen and done is news."""
        self._left = asyncio.ensure_future(connection.run(lambda: None))  # steps keep their order
        self._left.add_done_callback(
            lambda left: self._news() if not left.cancelled() and not left.exception() else None
        )

    @property
    def written(self) -> int:
        """See ``Book.written``. From any thread."""
        return self._book.written

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self.here:
            await connection.close()
