"""The servers behind one URL: which of them has a key, and how to ask it."""

from __future__ import annotations

import asyncio
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from neuralcore_transports.redis.errors import translated
from neuralcore_transports.redis.options import Address, RedisOptions
from neuralcore_transports.redis.pipe import NotSent, Pipe
from neuralcore_transports.redis.scripts import SCRIPTS, Dialect, Script

__all__ = ["Node", "Part", "Servers", "Standalone", "connection_options", "connection_to", "unknown"]

log = logging.getLogger("neuralcore.redis")

Part = str | bytes | int

_HUNG_UP: Final = re.compile("reset by peer|closed", re.IGNORECASE)


def connection_options(options: RedisOptions) -> dict[str, Any]:
    """What connections of both kinds of client, synchronous and not, are made with."""
    made: dict[str, Any] = {
        "db": options.database,
        "protocol": 3,
        "client_name": "neuralcore",
        "socket_connect_timeout": options.timeout,
        "health_check_interval": 0,
    }
    if options.password is not None:
        made.update(username=options.username, password=options.password)
    if options.tls:
        made.update(ssl_ca_certs=options.tls_ca, ssl_certfile=options.tls_cert, ssl_keyfile=options.tls_key)
    return made


def connection_to(options: RedisOptions, address: Address | None) -> AbstractConnection:
    """Not connected yet. It tries nothing again by itself: a repeated command may be carried out twice."""
    made = {**connection_options(options), "socket_timeout": None, "retry": Retry(NoBackoff(), 0)}
    if options.socket is not None:
        return UnixDomainSocketConnection(path=options.socket, **made)
    assert address is not None
    host, port = address
    return (SSLConnection if options.tls else Connection)(host=host, port=port, **made)


class Node:
    """One server: a connection for each kind of work, so that none waits for another; opened when it is used first."""

    def __init__(self, options: RedisOptions, address: Address | None, on_broken: Callable[[Exception], None]) -> None:
        self.address = address
        self.where = options.socket or "{}:{}".format(*(address or ("", 0)))
        self.version: tuple[int, ...] = ()
        self._options = options
        self._on_broken = on_broken
        self._pipes: dict[str, Pipe] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._closed = False
        self._functions = True

    async def call(self, lane: str, *command: Part, asking: bool = False) -> Any:
        """Raises what the server answers, Broken, NotSent. ``asking``: the slot is on its way to this server."""
        pipe = self._pipes.get(lane)
        if pipe is None or pipe.broken:
            pipe = await self._opened(lane)
        return (await _both(pipe, command, (), asking=asking))[0]

    async def script(
        self,
        lane: str,
        script: Script,
        keys: Sequence[str],
        parts: Sequence[Part],
        wait: Sequence[Part] = (),
        *,
        asking: bool = False,
    ) -> tuple[Any, Any]:
        """``wait``: a command that follows on the same connection, as WAIT must; its answer is the second one."""
        pipe = self._pipes.get(lane)
        if pipe is None or pipe.broken:
            pipe = await self._opened(lane)
        try:
            return await _both(pipe, (*self.dialect.call(script), len(keys), *keys, *parts), wait, asking=asking)
        except ResponseError as error:  # the server was restarted, or somebody has flushed what it was told
            if not unknown(error):
                raise
            await self._teach(pipe, script)
            return await _both(pipe, (*self.dialect.call(script), len(keys), *keys, *parts), wait, asking=asking)

    async def _teach(self, pipe: Pipe, script: Script) -> None:
        try:
            await pipe.call(*self.dialect.load(script))
        except ResponseError as error:
            if not self.dialect.functions:
                raise
            log.debug("Redis at %s takes no functions, so it gets scripts: %s", self.where, error)
            self._functions = False
            await pipe.call(*self.dialect.load(script))

    @property
    def dialect(self) -> Dialect:
        return Dialect.of(self.version, cluster=self._options.cluster, functions=self._functions)

    async def _opened(self, lane: str) -> Pipe:
        async with self._locks.setdefault(lane, asyncio.Lock()):
            self._check_open()
            pipe = self._pipes.get(lane)
            if pipe is not None and not pipe.broken:
                return pipe
            try:
                pipe = await self.connect()
                try:
                    await self._greet(pipe)
                except BaseException:
                    await pipe.close()
                    raise
            except (RedisError, OSError, asyncio.TimeoutError) as raised:
                error = self._explained(raised)
                self._on_broken(error)
                raise NotSent(str(error) or type(error).__name__) from error
            try:
                self._check_open()
            except NotSent:
                await pipe.close()
                raise
            pipe.on_broken = self._on_broken
            self._pipes[lane] = pipe
            return pipe

    def _explained(self, error: Exception) -> Exception:
        """A server that misses a client's certificate may hang up before its reason can be read."""
        if not self._options.tls or self._options.tls_cert is not None or not _HUNG_UP.search(str(error)):
            return error
        return ConnectionResetError(f"{error}; if it asks for a client's certificate, it wants ?tls_cert= and tls_key=")

    def _check_open(self) -> None:
        if self._closed:
            raise NotSent("this client is closed")

    async def connect(self, on_push: Callable[[list[Any]], None] | None = None) -> Pipe:
        """One of the caller's own. Raises RedisError, OSError."""
        pipe = Pipe(connection_to(self._options, self.address), self._options.timeout, on_push)
        await pipe.open()
        return pipe

    async def _greet(self, pipe: Pipe) -> None:
        info = (await pipe.call("INFO", "server")).decode()
        found = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
        self.version = tuple(int(part) for part in found.get("redis_version", "6.2.0").split(".")[:3])

    async def load(self) -> None:
        """Have all scripts there, so that the first messages are not slow."""
        pipe = await self._opened("work")
        for script in SCRIPTS[:1] if self.dialect.functions else SCRIPTS:
            await self._teach(pipe, script)

    async def close(self) -> None:
        self._closed = True
        for pipe in self._pipes.values():
            await pipe.close()


def unknown(error: ResponseError) -> bool:
    """Whether the server does not know the script or function."""
    return isinstance(error, NoScriptError) or "Function not found" in str(error)


async def _both(pipe: Pipe, command: Sequence[Part], wait: Sequence[Part], *, asking: bool) -> tuple[Any, Any]:
    if asking:
        _ = pipe.call("ASKING")
    answer = pipe.call(*command)
    waited = pipe.call(*wait) if wait else None
    return await answer, None if waited is None else await waited


class Servers(ABC):
    """Commands find the server that has their key."""

    def __init__(self, options: RedisOptions, on_broken: Callable[[Exception], None]) -> None:
        self.options = options
        self.on_broken = on_broken

    @abstractmethod
    async def open(self) -> None:
        """Raises TransportError."""

    @abstractmethod
    async def script(
        self, lane: str, script: Script, keys: Sequence[str], parts: Sequence[Part], wait: Sequence[Part] = ()
    ) -> tuple[Any, Any]:
        """One step on the server that has the keys, and what it answers to ``wait``. Raises NotSent, Broken,
        TransportError.
        """

    @abstractmethod
    async def call(self, lane: str, key: str, *command: Part) -> Any: ...

    @abstractmethod
    async def each(self, *command: Part) -> list[Any]:
        """The answers of all servers that take writes. Raises TransportError."""

    @abstractmethod
    def version(self) -> tuple[int, ...]:
        """Of the oldest server."""

    @abstractmethod
    def slot(self, key: str) -> int:
        """Keys of one slot can be used in one step."""

    @abstractmethod
    async def listen(self, on_push: Callable[[list[Any]], None]) -> Pipe:
        """A connection for topics; any server passes on what is published on any other."""

    @abstractmethod
    async def close(self) -> None: ...


class Standalone(Servers):
    """One server has everything."""

    def __init__(self, options: RedisOptions, on_broken: Callable[[Exception], None]) -> None:
        super().__init__(options, on_broken)
        self.node = Node(options, None if options.socket else options.hosts[0], on_broken)

    async def open(self) -> None:
        try:
            await self.node.load()
        except NotSent as error:
            raise translated(
                error.__cause__ if isinstance(error.__cause__, Exception) else error, self.node.where
            ) from error
        except RedisError as error:
            raise translated(error, self.node.where) from error

    async def script(
        self, lane: str, script: Script, keys: Sequence[str], parts: Sequence[Part], wait: Sequence[Part] = ()
    ) -> tuple[Any, Any]:
        try:
            return await self.node.script(lane, script, keys, parts, wait)
        except RedisError as error:
            raise translated(error, self.node.where) from error

    async def call(self, lane: str, key: str, *command: Part) -> Any:
        try:
            return await self.node.call(lane, *command)
        except RedisError as error:
            raise translated(error, self.node.where) from error

    async def each(self, *command: Part) -> list[Any]:
        return [await self.call("work", "", *command)]

    def version(self) -> tuple[int, ...]:
        return self.node.version

    def slot(self, key: str) -> int:
        return 0

    async def listen(self, on_push: Callable[[list[Any]], None]) -> Pipe:
        return await self.node.connect(on_push)

    async def close(self) -> None:
        await self.node.close()
