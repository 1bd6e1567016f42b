"""What the questions about durability share: where files lie, what is stored, and how the bus is filled and emptied.

Every arm syncs its file at every commit: write-ahead log and ``synchronous=FULL``, ours as ``durability=full``. Under
strace 200 publishes of the bus one by one took 214 fdatasync, and 200 commits of plain ``sqlite3`` 207.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._bus import CHANNEL
from benchmarks._sink import CheckFailed, Recorder, Sink
from benchmarks._slow_disk import syncing_slower
from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.subscription import Subscription

__all__ = [
    "GROUP",
    "PLACE",
    "TEXT",
    "Payload",
    "bus_at",
    "checked",
    "drain",
    "folder",
    "payloads",
    "publish_at_once",
    "settled",
    "shares",
    "spawn",
    "store",
]

Payload = dict[str, Any]

GROUP = "bench"
CAPACITY = 1_000
BATCH = 1_000
"""Of what is stored without being timed."""
TEXT = "What is stored is about as long as the messages of most applications, a few hundred bytes. " * 2
NO_DISK = ("tmpfs", "ramfs", "devtmpfs")
POLL = 0.0005
"""Seconds between looks at what was settled: a busy loop would take the processor from the stores' threads."""


@dataclass(slots=True)
class Place:
    """Set by the command line, before anything runs."""

    directory: Path | None = None
    url: str = "sqlite://{path}?durability=full"
    stored: int = 1_000_000

    def declare(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--directory", type=Path, help="where files are made (default: the system's for temporary)")
        parser.add_argument("--url", default=self.url, help="our store; {path}: an absolute path, {name}: a fresh name")
        parser.add_argument("--slow-sync", type=int, default=0, metavar="US", help="let every sync take so much longer")
        parser.add_argument("--stored", type=int, default=self.stored, help="how many messages a full store has")

    def read(self, options: argparse.Namespace) -> None:
        syncing_slower(options.slow_sync)
        self.directory, self.url, self.stored = options.directory, options.url, options.stored
        if (kind := file_system(Path(self.directory or tempfile.gettempdir()))) in NO_DISK:
            raise SystemExit(f"{self.directory or tempfile.gettempdir()} is a {kind}, which syncs nothing: --directory")

    def url_of(self, path: Path) -> str:
        return self.url.format(path=path.absolute(), name=path.parent.name)


PLACE = Place()


def file_system(path: Path) -> str:
    """The kind of the file system that a path lies on; empty where the kernel does not say."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return ""
    found = [line.split()[1:3] for line in mounts.read_text().splitlines()]
    return max((len(point), kind) for point, kind in found if path.resolve().is_relative_to(point))[1]


@contextmanager
def folder() -> Iterator[Path]:
    """Fresh, and gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench", dir=PLACE.directory) as made:
        yield Path(made)


def payloads(start: int, stop: int) -> list[Payload]:
    return [{"i": i, "text": TEXT} for i in range(start, stop)]


def shares(n: int, publishers: int) -> list[list[Payload]]:
    """An equal share for each, in turn from its own range."""
    share = n // publishers
    return [payloads(k * share, (k + 1) * share) for k in range(publishers)]


def checked(sink: Sink, handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The handler, which also looks at the text when arms are checked."""
    if not isinstance(sink, Recorder):
        return handler

    def look(item: Any) -> Any:
        if getattr(item, "payload", item)["text"] != TEXT:
            raise CheckFailed("a message was changed")
        return handler(item)

    async def awaited(item: Any) -> None:
        await look(item)

    return awaited if asyncio.iscoroutinefunction(handler) else look


@asynccontextmanager
async def bus_at(path: Path, *, fresh: bool = True) -> AsyncIterator[MessageBus]:
    """The bus on a store in this folder; a fresh one hears of the group, which gets what is published from then on."""
    async with MessageBus(PLACE.url_of(path / "bus.db")) as bus:
        if fresh:
            await _keep(bus)
        yield bus


async def _keep(bus: MessageBus) -> None:

    async def nobody(message: object) -> None:
        raise CheckFailed("a message came before it was asked for")

    subscribed = bus.subscribe(CHANNEL, nobody, group=GROUP)
    await subscribed.ready()
    await subscribed.unsubscribe(timeout=60.0)


async def publish_at_once(bus: MessageBus, parts: list[list[Payload]]) -> None:
    """Each by a publisher of its own."""

    async def publisher(part: list[Payload]) -> None:
        for payload in part:
            await bus.publish(CHANNEL, payload)

    if len(parts) == 1:
        await publisher(parts[0])
    else:
        await asyncio.gather(*map(publisher, parts))


async def store(bus: MessageBus, start: int, stop: int) -> None:
    """Untimed."""
    for first in range(start, stop, BATCH):
        await bus.publish_many([(CHANNEL, payload) for payload in payloads(first, min(stop, first + BATCH))])


async def drain(bus: MessageBus, n: int, sink: Sink) -> None:
    """Have the stored messages handled; raises CheckFailed when fewer come."""
    subscribed = bus.subscribe(CHANNEL, checked(sink, sink.awaited()), group=GROUP, capacity=CAPACITY)
    await asyncio.wait_for(settled(bus, subscribed, n), 60.0)


async def settled(bus: MessageBus, subscribed: Subscription, n: int) -> None:
    """Until the subscriptions have acknowledged so many messages and the store has taken it."""
    while sum(each.acked for each in bus.metrics().subscriptions) < n:  # noqa: ASYNC110
        await asyncio.sleep(POLL)
    await subscribed.unsubscribe(timeout=60.0)


async def spawn(module: str, *arguments: object) -> asyncio.subprocess.Process:
    """A child of a benchmark; it tells the child where our store is."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        "--child",
        PLACE.url,
        *map(str, arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
