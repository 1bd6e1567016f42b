"""What publishes beside the bus, each used as its documentation shows, with its log turned off and its best options.

What they do not do that the bus does: none stores a message once when its publish is repeated, so that those who try
again after a lost answer may store it twice; none but Celery removes from the server what was settled (``maxlen``
would, settled or not). More stands with each, and is printed below the tables.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from benchmarks._bus import CHANNEL
from benchmarks._durable import GROUP
from benchmarks._durable_threads import put_at_once
from benchmarks._loads import CONCURRENCY
from benchmarks._redis import BATCH, JSON, STREAM, Payload, bus_on, entry, plain_client, publish_at_once

__all__ = [
    "CONCURRENCY",
    "PEERS",
    "QUEUE",
    "SKIPPED",
    "Bus",
    "Publisher",
    "Raw",
    "Read",
    "at_once",
    "celery_app",
    "faststream_broker",
    "reader",
    "taskiq_broker",
]

QUEUE = "celery"
TASK = "bench.handle"

Parts = Sequence[Sequence[Payload]]


class Publisher(ABC):
    """Open on a server. ``kind`` is how the consuming process is called that belongs to it."""

    kind: ClassVar[str]
    name: ClassVar[str]
    module: ClassVar[str] = "redis"
    requirement: ClassVar[str] = "redis[hiredis]>=8.1"
    ordered: ClassVar[bool] = True
    """Whether handlers that do not sleep begin in order."""
    share: ClassVar[float] = 1.0
    note: ClassVar[str] = ""

    @classmethod
    @abstractmethod
    def open(cls, url: str) -> Any:
        """An asynchronous context manager of itself."""

    @abstractmethod
    async def publish(self, payload: Payload) -> object: ...

    async def publish_all(self, parts: Parts) -> None:
        """Each part by a publisher of its own."""

        async def publisher(part: Sequence[Payload]) -> None:
            for payload in part:
                await self.publish(payload)

        await asyncio.gather(*map(publisher, parts))


class Bus(Publisher):
    kind = name = "bus"
    module = "neuralcore"

    def __init__(self, bus: Any) -> None:
        self._bus = bus

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Bus]:
        async with bus_on(url) as bus:
            yield cls(bus)

    async def publish(self, payload: Payload) -> object:
        return await self._bus.publish(CHANNEL, payload, content_type=JSON)

    async def publish_all(self, parts: Parts) -> None:
        await publish_at_once(self._bus, parts)


class Raw(Publisher):
    """XADD, a connection for each publisher; XREADGROUP and XACK of up to 100."""

    kind = name = "raw"
    note = "raw redis-py: no retries, no dead letters, nothing about duplicates; a crash leaves messages pending"

    def __init__(self, client: Any) -> None:
        self._client = client

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Raw]:
        async with plain_client(url) as client:
            yield cls(client)

    async def publish(self, payload: Payload) -> object:
        return await self._client.xadd(STREAM, entry(payload))


Entries = list[tuple[bytes, dict[bytes, bytes]]]
Read = Callable[[], Awaitable[Entries]]


def reader(client: Any) -> Read:
    async def read() -> Entries:
        found = await client.xreadgroup(GROUP, "one", {STREAM: ">"}, count=BATCH, block=1_000)
        return found[0][1] if found else []

    return read


async def at_once(read: Read, acks: Any, handle: Callable[[Any], Awaitable[None]], n: int) -> None:
    """Workers at a queue; one acknowledges what they have done meanwhile. Until ``n`` are acknowledged."""
    queue: asyncio.Queue[tuple[bytes, dict[bytes, bytes]]] = asyncio.Queue(BATCH)
    done: asyncio.Queue[bytes] = asyncio.Queue()

    async def fetch() -> None:
        while True:
            for each in await read():
                await queue.put(each)

    async def work() -> None:
        while True:
            entry, fields = await queue.get()
            await handle(json.loads(fields[b"data"]))
            done.put_nowait(entry)

    tasks = [asyncio.create_task(each) for each in (fetch(), *(work() for _ in range(CONCURRENCY)))]
    left = n
    while left:
        some = [await done.get()]
        while not done.empty():
            some.append(done.get_nowait())
        await acks.xack(STREAM, GROUP, *some)
        left -= len(some)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def faststream_broker(url: str) -> Any:
    """Without its log, and without validation of what handlers are given, which makes it a fifth faster."""
    from faststream.redis import RedisBroker

    return RedisBroker(url, logger=None, apply_types=False)


class FastStream(Publisher):
    """A group reads up to 100; each message is acknowledged by itself. More workers than one make handlers that do
    nothing slower (5, 20 and 100 were tried): there are 20 for those that sleep.
    """

    kind = name = "FastStream"
    module, requirement = "faststream", "faststream[redis]>=0.7.8"
    share = 0.5
    note = "FastStream: a failed or crashed handler's message stays pending unless claimed"

    def __init__(self, broker: Any) -> None:
        self._broker = broker

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[FastStream]:
        broker = faststream_broker(url)
        await broker.connect()
        try:
            yield cls(broker)
        finally:
            await broker.stop()

    async def publish(self, payload: Payload) -> object:
        return await self._broker.publish(payload, stream=STREAM)


class FastStreamBatches(FastStream):
    """The same, but a handler gets a list and one acknowledgement is for all of it."""

    kind = name = "FastStream, batches"
    note = "FastStream, batches: a handler that fails at one message has failed at all of its list"


def taskiq_broker(url: str, handle: Callable[[Payload], Any]) -> tuple[Any, Any]:
    """The broker, and the task that its publishers call."""
    from taskiq_redis import RedisStreamBroker

    broker = RedisStreamBroker(
        url, queue_name=STREAM, consumer_group_name=GROUP, xread_count=BATCH, unacknowledged_lock_timeout=60.0
    )

    async def task(payload: dict[str, Any]) -> None:
        await handle(payload)

    return broker, broker.register_task(task, task_name=TASK)


class Taskiq(Publisher):
    kind = name = "taskiq"
    module, requirement = "taskiq_redis", "taskiq-redis>=1.2.4"
    ordered = False
    share = 0.5
    note = "taskiq: no order; results are not stored; what a crashed worker had is claimed after 10 minutes"

    def __init__(self, task: Any) -> None:
        self._task = task

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Taskiq]:
        broker, task = taskiq_broker(url, _never)
        await broker.startup()
        try:
            yield cls(task)
        finally:
            await broker.shutdown()

    async def publish(self, payload: Payload) -> object:
        return await self._task.kiq(payload)


async def _never(payload: Payload) -> None:
    raise RuntimeError("the publishing process handles nothing")


def celery_app(url: str, handle: Callable[[Payload], Any]) -> tuple[Any, Any]:
    """The application, and the task that its publishers call."""
    from celery import Celery

    app = Celery("bench", broker=url)
    app.conf.update(
        task_acks_late=True,
        task_ignore_result=True,
        worker_prefetch_multiplier=BATCH // CONCURRENCY,
        broker_pool_limit=CONCURRENCY,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
    )

    def task(payload: dict[str, Any]) -> None:
        handle(payload)

    return app, app.task(name=TASK, ignore_result=True)(task)


class CeleryPeer(Publisher):
    """Its calls block, so its publishers are threads; its worker has 20 threads, and acknowledges late."""

    kind = name = "Celery"
    module, requirement = "celery", "celery>=5.7"
    ordered = False
    share = 0.5
    note = (
        "Celery: no order; a worker that crashes between BRPOP and its note of that loses the message; what it had in "
        "hand comes again after an hour"
    )

    def __init__(self, task: Any) -> None:
        self._task = task

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[CeleryPeer]:
        app, task = celery_app(url, _never)
        try:
            yield cls(task)
        finally:
            app.close()

    async def publish(self, payload: Payload) -> object:
        return await asyncio.to_thread(self._task.delay, payload)

    async def publish_all(self, parts: Parts) -> None:
        await asyncio.to_thread(put_at_once, self._task.delay, parts)


_KNOWN: tuple[type[Publisher], ...] = (FastStream, FastStreamBatches, Taskiq, CeleryPeer)

PEERS = tuple(peer for peer in _KNOWN if importlib.util.find_spec(peer.module))
SKIPPED = (
    *(
        f'left out: {peer.name} is not installed; pip install "{peer.requirement}"'
        for peer in _KNOWN
        if peer not in PEERS
    ),
    "left out: arq 0.28 wants redis<6, and everybody else here 8",
)
