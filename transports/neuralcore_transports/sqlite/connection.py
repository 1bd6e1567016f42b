"""A connection with a thread of its own, on which whole steps run, not statements: one hand-over a transaction."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias, TypeVar

import aiosqlite

from neuralcore.messaging.forking import NoFork
from neuralcore_transports.sqlite.errors import SQL_ERRORS, translated
from neuralcore_transports.sqlite.options import SqliteOptions

__all__ = ["StepConnection", "Told", "answer"]

T = TypeVar("T")

Told: TypeAlias = Callable[[T | None, BaseException | None], object]
"""A step's result, or the error that it ended with."""


class StepConnection(aiosqlite.Connection):
    """Cancelling whoever awaits a step does not stop it: it happens, or not, as a whole."""

    def __init__(self, options: SqliteOptions, connect: Callable[[], sqlite3.Connection]) -> None:
        self._no_fork = NoFork()
        super().__init__(self._guarded(connect), 64)
        self.options = options
        self._thread.daemon = True  # an application that never closes it may still end

    async def open(self) -> None:
        """Raises NeuralCoreError."""
        try:
            await self  # type: ignore[unused-awaitable] # it answers itself
        except SQL_ERRORS as error:
            raise self._translated(error) from error

    async def _execute(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Statements that do not come by ``run`` too."""
        result: T = await super()._execute(self._guarded(fn), *args, **kwargs)  # type: ignore[no-untyped-call]
        return result

    def _guarded(self, call: Callable[..., T]) -> Callable[..., T]:
        """SQLite's locks are the whole process's: a child that was forked inside it would wait for them for ever."""

        def guarded(*args: Any, **kwargs: Any) -> T:
            with self._no_fork:
                return call(*args, **kwargs)

        return guarded

    async def run(self, step: Callable[[], T]) -> T:
        """Raises NeuralCoreError for what is wrong with the file."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.post(step, partial(answer, future))
        return await future

    def post(self, step: Callable[[], T], told: Told[T]) -> None:
        """Steps are taken in the order in which they were posted. ``told`` is called on the running loop, with what
        ``run`` returns or raises, whoever may have stopped waiting.
        """
        if not self._running or self._connection is None:
            raise ValueError("Connection closed")
        self._tx.put_nowait((None, partial(self._take, step, told, asyncio.get_running_loop())))

    def _take(self, step: Callable[[], T], told: Told[T], loop: asyncio.AbstractEventLoop) -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            with self._no_fork:
                result = step()
        except SQL_ERRORS as failed:
            error = self._translated(failed)
            error.__cause__ = failed
        except BaseException as failed:  # noqa: BLE001 - told, whatever it is
            error = failed
        loop.call_soon_threadsafe(told, result, error)

    def _translated(self, error: sqlite3.Error | UnicodeDecodeError) -> Exception:
        return translated(error, str(self.options.path), self.options.busy)

    @property
    def raw(self) -> sqlite3.Connection:
        """For its own thread."""
        return self._conn


def answer(future: asyncio.Future[T], result: T | None, error: BaseException | None) -> None:
    """Unless whoever waited for it is gone."""
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)  # type: ignore[arg-type] # without an error it is one
