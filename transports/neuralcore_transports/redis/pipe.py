"""One connection on which nobody waits for anybody else's answer: they come in the order of the commands.

redis-py makes the connection, with all that greeting a server takes. From then on its bytes are read here: its own
reading would take a task two turns of the loop for each answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import hiredis
from redis.asyncio.connection import AbstractConnection, DefaultParser
from redis.exceptions import InvalidResponse, RedisError

from neuralcore_transports.redis.deadline import within

__all__ = ["Broken", "NotSent", "Pipe"]

_CHECKS: Final = 4
"""How often in a time-out it is looked whether one has passed."""


_MORE: Final = object()


class Broken(ConnectionError):
    """The connection went before the answer came: nobody knows whether the command was carried out."""


class NotSent(ConnectionError):
    """The connection was gone before the command."""


class Pipe(asyncio.Protocol):
    """A caller that is cancelled leaves its command running, and no disorder behind. On one loop."""

    def __init__(
        self, connection: AbstractConnection, timeout: float, on_push: Callable[[list[Any]], None] | None = None
    ) -> None:
        """``timeout``: seconds of silence after which a missing answer means that the connection is dead."""
        self._connection = connection
        self._timeout = timeout
        self._on_push = on_push
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=DefaultParser.parse_error, notEnoughData=_MORE
        )
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        """Since when, and who."""
        self._heard = 0.0
        self._error: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._gone: asyncio.Future[None] = self._loop.create_future()
        """Nothing is left of the connection."""
        self.on_broken: Callable[[Exception], None] = lambda error: None

    @property
    def broken(self) -> bool:
        return self._error is not None

    async def open(self) -> None:
        """Raises RedisError, OSError."""
        try:
            await within(self._timeout, self._connection.connect())  # type: ignore[no-untyped-call]
            await self._take_over()
        except BaseException as error:
            self._error = NotSent("it was never opened")
            with suppress(RedisError, OSError):  # it is gone either way
                await self._connection.disconnect(nowait=True)
            if isinstance(error, asyncio.TimeoutError):
                raise asyncio.TimeoutError(
                    f"no greeting within {self._timeout:g} s: is it a Redis server, with TLS as the URL says?"
                ) from None
            raise

    async def _take_over(self) -> None:
        """The server has answered everything it was asked. It may have closed the connection right then, which its
        former reader was told, and nobody would be again.
        """
        connection = self._connection
        unread = await connection.can_read()  # its end, too
        reader, writer = connection._reader, connection._writer
        if reader is None or writer is None or unread or reader.exception() or writer.transport.is_closing():
            raise ConnectionError("the server has closed the connection as soon as it was open")
        connection._reader = connection._writer = None
        self._writer = writer  # it would close its transport when it is collected
        self._transport = writer.transport
        writer.transport.set_protocol(self)

    def call(self, *command: str | bytes | int) -> asyncio.Future[Any]:
        """Resolves to the answer, bytes and all. Raises NotSent; Broken or the server's ResponseError later."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._send(command)
        self._waiting.append((self._loop.time(), answer))
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout / _CHECKS, self._check)
        return answer

    def tell(self, *command: str | bytes | int) -> None:
        """What is answered by a push, as SUBSCRIBE is."""
        self._send(command)

    def _send(self, command: tuple[str | bytes | int, ...]) -> None:
        if self._error is not None or self._transport is None:
            raise NotSent(str(self._error)) from self._error
        try:
            self._transport.write(hiredis.pack_command(command))  # type: ignore[arg-type]
        except RuntimeError as error:  # uvloop's, before it tells that the connection is lost
            self._break(Broken(str(error)))
            raise NotSent(str(error)) from error

    # What its transport tells

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        reader = self._reader
        try:
            reader.feed(data)
            while self._error is None and (reply := reader.gets()) is not _MORE:
                self._take(reply)
        except (RedisError, OSError) as error:
            self._break(error)
        except Exception as error:  # noqa: BLE001 - whatever it was, no more answers come
            broken = Broken(f"what the server said was not understood: {error!r}")
            broken.__cause__ = error
            self._break(broken)

    def eof_received(self) -> None:
        self._break(Broken("the server has closed the connection"))

    def connection_lost(self, error: Exception | None) -> None:
        self._break(error or Broken("the connection was closed"))
        if not self._gone.done():
            self._gone.set_result(None)

    def _take(self, reply: Any) -> None:
        if isinstance(reply, hiredis.PushNotification):
            if self._on_push is not None:
                self._on_push(reply)
        elif self._waiting:
            answer = self._waiting.popleft()[1]
            if answer.done():  # whoever asked is gone
                return
            if isinstance(reply, Exception):
                answer.set_exception(reply)
                answer.exception()  # whoever asked may be gone
            else:
                answer.set_result(reply)
        elif isinstance(reply, Exception):  # SUBSCRIBE's: there will be nothing to hear
            raise reply

    def _check(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        if max(self._heard, self._waiting[0][0]) + self._timeout <= self._loop.time():
            self._break(Broken(f"no answer within {self._timeout:g} s"))
        else:
            self._timer = self._loop.call_later(self._timeout / _CHECKS, self._check)

    def _break(self, error: Exception) -> None:
        if self._error is not None:
            return
        self._error = error
        for _, answer in self._waiting:
            if not answer.done():
                answer.set_exception(Broken(str(error) or type(error).__name__))
                answer.exception()
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()
        self.on_broken(error)

    async def close(self) -> None:
        """What was meant to be is not told to ``on_broken``."""
        self.on_broken = lambda error: None
        self._break(NotSent("this client has closed it"))
        if self._transport is not None:
            await self._gone
