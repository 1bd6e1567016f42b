"""An application's own transaction on the store's database: rows, messages and settlements, or nothing of it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from neuralcore.messaging.errors import TransportError
from neuralcore.messaging.transport import CommitResult, Envelope, Settlement, Transaction
from neuralcore_transports.sqlite.clock import StoreClock
from neuralcore_transports.sqlite.connection import StepConnection
from neuralcore_transports.sqlite.opening import connect
from neuralcore_transports.sqlite.options import SqliteOptions
from neuralcore_transports.sqlite.store.store import Store
from neuralcore_transports.sqlite.store.transaction import Book

if TYPE_CHECKING:
    from neuralcore_transports.sqlite.transport import SqliteTransport

__all__ = ["OwnConnection", "SqliteTransaction", "own_connection"]


class OwnConnection(StepConnection):
    """An application's, set up so that it is safe beside the transport's own."""

    def __init__(self, options: SqliteOptions) -> None:
        super().__init__(options, lambda: _connect(options))
        self.turn = asyncio.Lock()
        """One transaction at a time."""


def _connect(options: SqliteOptions) -> sqlite3.Connection:
    connection = connect(options.path)
    connection.execute(f"PRAGMA busy_timeout = {round(options.busy * 1000)}")
    connection.execute(f"PRAGMA synchronous = {options.level}")
    return connection


@asynccontextmanager
async def own_connection(options: SqliteOptions) -> AsyncIterator[OwnConnection]:
    connection = OwnConnection(options)
    await connection.open()
    try:
        yield connection
    finally:
        await connection.close()


class SqliteTransaction(Transaction):
    """Holds the only write lock of the file from its beginning to its end."""

    def __init__(
        self,
        transport: SqliteTransport,
        connection: object,
        clock: StoreClock,
        tell: Callable[[str, str], None],
    ) -> None:
        if not isinstance(connection, OwnConnection) or connection.options.path != transport.options.path:
            raise TypeError(
                "a transaction is made on a connection of the same bus: `async with bus.connection() as connection`; "
                f"got {type(connection).__name__}"
            )
        self._transport = transport
        self._connection = connection
        self._clock = clock
        options = connection.options
        self._book = Book(connection.raw, patience=options.busy, level=options.level)
        self._store = Store(self._book, options.limits(), tell=tell)
        self._settled: list[Settlement] = []

    async def __aenter__(self) -> SqliteTransaction:
        await self._connection.turn.acquire()
        try:
            await self._connection.run(self._begin)
        except BaseException:
            await self._give_up()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            await self._give_up()
            return
        try:
            await asyncio.shield(asyncio.ensure_future(self._connection.run(self._commit)))
        finally:
            await self._give_up()
        self._transport.committed(self._settled)

    def _begin(self) -> None:
        self._transport.room.await_moving(self._connection.raw)
        self._book.waiting("BEGIN IMMEDIATE")

    def _commit(self) -> None:
        if not self._connection.raw.in_transaction:
            raise TransportError("the transaction was ended inside its block; leave commit and rollback to the block")
        self._book.waiting("COMMIT")

    async def _give_up(self) -> None:
        """Undo what is not committed, and let the next one have its turn."""
        try:
            await asyncio.shield(asyncio.ensure_future(self._connection.run(self._book.undo)))
        finally:
            self._connection.turn.release()

    async def commit(self, publishes: Sequence[Envelope], settlements: Sequence[Settlement] = ()) -> CommitResult:
        result = await self._connection.run(lambda: self._join(publishes, settlements))
        self._settled += settlements
        return result

    def _join(self, publishes: Sequence[Envelope], settlements: Sequence[Settlement]) -> CommitResult:
        self._transport.room.check_inside(publishes, settlements, self._connection.raw)
        return self._store.joined(publishes, settlements, self._clock.now())
