"""What the questions about Redis share: the server, what is stored, and how the bus and a plain client use it.

The server is started by the benchmark: append-only file, synced every second, the same for all arms, and emptied before
each run. Bodies are JSON for all: ours say so, as the peers know nothing else. The plain client is redis-py on asyncio
with hiredis, writing entries of the same fields as ours.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import _redis_server
from benchmarks._bus import CHANNEL
from benchmarks._durable import GROUP, NO_DISK, file_system, settled
from benchmarks._redis_server import VERSIONS, Server, binary
from benchmarks._sink import CheckFailed, Recorder, Sink
from neuralcore._core import Message
from neuralcore.messaging.bus import MessageBus

__all__ = [
    "BATCH",
    "JSON",
    "PATIENCE",
    "PLACE",
    "SIZES",
    "STREAM",
    "Meter",
    "Payload",
    "Text",
    "batches",
    "bus_on",
    "drain",
    "entry",
    "items",
    "keep",
    "plain_client",
    "publish_at_once",
    "publish_batches",
    "raw_publish_batches",
    "wiped",
]

Payload = dict[str, Any]

BATCH = 100
"""Of everyone who has batches."""
STREAM = "raw"
PREFIX = "bench"
JSON = "application/json"
PATIENCE = 60.0
"""Seconds after which messages that have not come are lost."""
encoded = msgspec.json.encode
"""By all plain clients, as by the bus."""


@dataclass(slots=True)
class Place:
    """Set by the command line, before anything runs."""

    directory: Path | None = None
    version: str = "7.0"
    backlog: int = 1_000_000
    _servers: dict[str, Server] = field(default_factory=dict)
    _folders: list[tempfile.TemporaryDirectory[str]] = field(default_factory=list)

    def declare(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--server-version", choices=VERSIONS, default=self.version)
        parser.add_argument("--directory", type=Path, help="where servers write (default: the system's for temporary)")
        parser.add_argument("--backlog", type=int, default=self.backlog, help="how many messages a full store has")

    def read(self, options: argparse.Namespace) -> None:
        self.directory, self.version, self.backlog = options.directory, options.server_version, options.backlog
        if binary(self.version) is None:
            raise SystemExit(f"Redis {self.version} is not here: make servers")
        where = Path(self.directory or tempfile.gettempdir())
        if (kind := file_system(where)) in NO_DISK:
            raise SystemExit(f"{where} is a {kind}, which syncs nothing: --directory")
        _redis_server.used(self.version)

    def server(self, name: str = "") -> Server:
        """Started when it is wanted first; one for each name."""
        if name not in self._servers:
            found = binary(self.version)
            if found is None:
                raise SystemExit(f"Redis {self.version} is not here: make servers")
            made = tempfile.TemporaryDirectory(prefix="bench", dir=self.directory, ignore_cleanup_errors=True)
            self._folders.append(made)
            self._servers[name] = Server(found, Path(made.name))
        return self._servers[name]

    def has_server(self, name: str) -> bool:
        return name in self._servers

    def stop(self) -> None:
        """The servers; otherwise they end with this process."""
        for server in self._servers.values():
            server.stop()
        for folder in self._folders:
            folder.cleanup()
        self._servers.clear()
        self._folders.clear()


PLACE = Place()


def wiped(name: str = "") -> Server:
    server = PLACE.server(name)
    server.wipe()
    return server


class Meter:
    """Wall clock of a ``with`` block, CPU of this process, and CPU of the server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.wall_ns = self.cpu_ns = 0
        self.server_ns = 0.0

    def __enter__(self) -> Meter:
        self._server_began = self._server.cpu_ns()
        self._cpu_began = time.process_time_ns()
        self.began = time.monotonic_ns()
        return self

    def __exit__(self, *exc: object) -> None:
        self.wall_ns = time.monotonic_ns() - self.began
        self.cpu_ns = time.process_time_ns() - self._cpu_began
        self.server_ns = self._server.cpu_ns() - self._server_began

    def per(self, n: int) -> dict[str, float]:
        return {
            "wall_ns": self.wall_ns / n,
            "cpu_ns": self.cpu_ns / n,
            "server_ns": self.server_ns / n,
            "per_s": n * 1e9 / self.wall_ns,
        }


class Text:
    """The text of messages whose bodies have about so many bytes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.text = ("What is stored has words of different lengths. " * (size // 40 + 1))[
            : size - len('{"i":1234,"text":""}')
        ]

    def payloads(self, start: int, stop: int) -> list[Payload]:
        return [{"i": i, "text": self.text} for i in range(start, stop)]

    def shares(self, n: int, publishers: int) -> list[list[Payload]]:
        """An equal share for each, in turn from its own range."""
        share = n // publishers
        return [self.payloads(k * share, (k + 1) * share) for k in range(publishers)]

    def checked(self, sink: Sink, handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """The handler, which also looks at the text when arms are checked."""
        if not isinstance(sink, Recorder):
            return handler

        def look(item: Any) -> Any:
            self.check(item)
            return handler(item)

        async def awaited(item: Any) -> None:
            await look(item)

        return awaited if asyncio.iscoroutinefunction(handler) else look

    def checked_batches(self, sink: Sink) -> Callable[[Any], Any]:
        """The same for handlers of batches."""
        handler = sink.batched()
        if not isinstance(sink, Recorder):
            return handler

        async def batched(items: list[Message]) -> None:
            for item in items:
                self.check(item)
            await handler(items)

        return batched

    def check(self, item: Any) -> None:
        if getattr(item, "payload", item)["text"] != self.text:
            raise CheckFailed("a message was changed")


SIZES = {"200 B": Text(200), "10 kB": Text(10_000)}
"""That are asked for everywhere."""


def batches(all_of_them: Sequence[Payload], size: int = BATCH) -> list[Sequence[Payload]]:
    return [all_of_them[first : first + size] for first in range(0, len(all_of_them), size)]


# The bus


def bus_url(url: str) -> str:
    return f"{url}?prefix={PREFIX}"


@asynccontextmanager
async def bus_on(url: str, *, fresh: bool = True) -> AsyncIterator[MessageBus]:
    """The bus on a server; with a group that gets what is published from then on."""
    async with MessageBus(bus_url(url)) as bus:
        if fresh:
            await keep(bus, CHANNEL)
        yield bus


async def keep(bus: MessageBus, pattern: str) -> None:
    """A group that has no members."""

    async def nobody(message: object) -> None:
        raise CheckFailed("a message came before it was asked for")

    subscribed = bus.subscribe(pattern, nobody, group=GROUP)
    await subscribed.ready()
    await subscribed.unsubscribe(timeout=PATIENCE)


async def publish_at_once(bus: MessageBus, parts: Sequence[Sequence[Payload]]) -> None:
    """Each by a publisher of its own."""

    async def publisher(part: Sequence[Payload]) -> None:
        for payload in part:
            await bus.publish(CHANNEL, payload, content_type=JSON)

    if len(parts) == 1:
        await publisher(parts[0])
    else:
        await asyncio.gather(*map(publisher, parts))


def items(batch: Sequence[Payload], channel: str = CHANNEL) -> list[tuple[Any, ...]]:
    """For ``publish_many``."""
    return [(channel, payload, None, {"content_type": JSON}) for payload in batch]


async def publish_batches(bus: MessageBus, parts: Sequence[Sequence[Payload]]) -> None:
    for batch in parts:
        await bus.publish_many(items(batch))


async def drain(bus: MessageBus, n: int, handler: Callable[[Any], Any], **subscription: Any) -> None:
    """Have the stored messages handled; raises TimeoutError when fewer come."""
    subscribed = bus.subscribe(CHANNEL, handler, group=GROUP, **subscription)
    await asyncio.wait_for(settled(bus, subscribed, n), PATIENCE)


# The plain client


@asynccontextmanager
async def plain_client(url: str) -> AsyncIterator[Any]:
    from redis.asyncio import Redis

    client = Redis.from_url(url, protocol=2, socket_timeout=PATIENCE)
    try:
        await client.ping()
        yield client
    finally:
        await client.aclose()


def entry(payload: Payload) -> dict[str, str | bytes]:
    """As many fields as ours have, as long as ours, with less work: the time is always the same."""
    return {
        "ce_specversion": "1.0",
        "ce_id": f"{payload['i']:032x}",
        "ce_source": "urn:neuralcore:bus:0123456789abcdef-01234567",
        "ce_type": CHANNEL,
        "ce_time": "2026-01-01T00:00:00.000000000Z",
        "content-type": JSON,
        "data": encoded(payload),
    }


async def raw_publish_batches(client: Any, parts: Sequence[Sequence[Payload]]) -> None:
    for batch in parts:
        pipeline = client.pipeline(transaction=False)
        for payload in batch:
            pipeline.xadd(STREAM, entry(payload))
        await pipeline.execute()
