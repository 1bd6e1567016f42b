"""One connection on which nobody waits for anybody else's answer: they come in the order of the commands."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from neuralcore.messaging.eager import begun
from neuralcore_transports.redis.deadline import within

__all__ = ["Broken", "NotSent", "Pipe"]

_CHECKS: Final = 4
"""How often in a time-out it is looked whether one has passed."""


class Broken(ConnectionError):
    """The connection went before the answer came: nobody knows whether the command was carried out."""


class NotSent(ConnectionError):
    """The connection was gone before the command."""


class Pipe:
    """A caller that is cancelled leaves its command running, and no disorder behind. On one loop."""

    def __init__(
        self, connection: AbstractConnection, timeout: float, on_push: Callable[[list[Any]], None] | None = None
    ) -> None:
        """``timeout``: seconds after which a missing answer means that the connection is dead."""
        self._connection = connection
        self._timeout = timeout
        self._on_push = on_push
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._error: Exception | None = None
        self._reader: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sending: set[asyncio.Future[None]] = set()
        self._ending: asyncio.Future[None] | None = None
        self.on_broken: Callable[[Exception], None] = lambda error: None

    @property
    def broken(self) -> bool:
        return self._error is not None

    async def open(self) -> None:
        """Raises RedisError, OSError."""
        try:
            await within(self._timeout, self._connection.connect())  # type: ignore[no-untyped-call]
        except BaseException as error:
            self._error = NotSent("it was never opened")
            await self._disconnect()
            if isinstance(error, asyncio.TimeoutError):
                raise asyncio.TimeoutError(
                    f"no greeting within {self._timeout:g} s: is it a Redis server, with TLS as the URL says?"
                ) from None
            raise
        self._reader = self._loop.create_task(self._read())

    def call(self, *command: str | bytes | int, timeout: float | None = None) -> asyncio.Future[Any]:
        """Resolves to the answer, bytes and all. Raises NotSent; Broken or the server's ResponseError later."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        if self._error is not None:
            raise NotSent(str(self._error)) from self._error
        self._waiting.append((self._loop.time() + (timeout or self._timeout), answer))
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout / _CHECKS, self._check)
        self._send(hiredis.pack_command(command))  # type: ignore[arg-type]
        return answer

    def tell(self, *command: str | bytes | int) -> None:
        """What is answered by a push, as SUBSCRIBE is."""
        if self._error is not None:
            raise NotSent(str(self._error)) from self._error
        self._send(hiredis.pack_command(command))  # type: ignore[arg-type]

    def _send(self, packed: bytes) -> None:
        try:
            rest = begun(self._connection.send_packed_command([packed], check_health=False))
        except (RedisError, OSError) as error:  # some of it may have gone
            self._break(error)
            return
        if rest is not None:  # the socket takes no more for now
            sending = asyncio.ensure_future(rest)
            self._sending.add(sending)
            sending.add_done_callback(self._sent)

    def _sent(self, sending: asyncio.Future[None]) -> None:
        self._sending.discard(sending)
        error = None if sending.cancelled() else sending.exception()
        if isinstance(error, Exception):
            self._break(error)

    async def _read(self) -> None:
        try:
            while True:
                try:
                    reply = await self._connection.read_response(
                        timeout=math.inf, disconnect_on_error=False, push_request=True
                    )
                except RedisError as error:
                    # The library takes some answers, such as LOADING, for a lost connection; they have a code.
                    # An error that answers no call is SUBSCRIBE's: there will be nothing to hear.
                    if not self._waiting or (error.status_code is None and not isinstance(error, ResponseError)):
                        raise
                    self._fail(error)
                else:
                    self._take(reply)
        except Exception as error:  # noqa: BLE001 - whatever it was, no more answers come
            self._break(error)

    def _take(self, reply: Any) -> None:
        if isinstance(reply, hiredis.PushNotification):
            if self._on_push is not None:
                self._on_push(reply)
        elif self._waiting:
            answer = self._waiting.popleft()[1]
            if not answer.done():
                answer.set_result(reply)

    def _fail(self, error: Exception) -> None:
        if self._waiting:
            answer = self._waiting.popleft()[1]
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # whoever asked may be gone

    def _check(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        if self._waiting[0][0] < self._loop.time():
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
        self._stop()
        self.on_broken(error)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for sending in self._sending:
            sending.cancel()
        if self._reader is not None and self._reader is not asyncio.current_task():
            self._reader.cancel()
        self._ending = asyncio.ensure_future(self._disconnect())

    async def _disconnect(self) -> None:
        with suppress(RedisError, OSError):  # it is gone either way
            await self._connection.disconnect(nowait=True)

    async def close(self) -> None:
        self._break(NotSent("this client has closed it"))
        if self._ending is not None:
            await self._ending
        if self._reader is not None:
            await asyncio.wait({self._reader})
