"""What the questions about Kafka share: the broker, what is stored, and how the bus and a plain client use it.

The broker is started by the benchmark as the tests start theirs (tests/servers): one of it, no copies, nothing synced
before it answers, a small heap, a quick compiler; the same for all arms. Each run has topics of its own. Bodies are
JSON for all, and all topics have as many partitions. The plain client is confluent-kafka, as the bus's own:
``acks=all``, idempotence, no lingering, and records with the headers that ours have.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import threading
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from benchmarks import _report
from benchmarks._bus import CHANNEL
from benchmarks._durable import GROUP, NO_DISK, file_system
from benchmarks._redis import JSON, PATIENCE, Payload, Text, encoded, keep
from benchmarks._sink import CheckFailed, Sink
from neuralcore._core import Message
from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.subscription import Subscription

if TYPE_CHECKING:
    from tests.servers.kafka_cluster import KafkaCluster

__all__ = [
    "FETCHED",
    "PARTITIONS",
    "PLACE",
    "WARM",
    "AsyncProducer",
    "Clock",
    "Meter",
    "Store",
    "acked",
    "bus_on",
    "but_warm",
    "check_committed",
    "consumer_of",
    "counted",
    "counted_batches",
    "headers",
    "producer_of",
    "read_all",
    "read_some",
    "sent",
    "warm",
    "wiped",
]

PARTITIONS = 8
"""Of every topic, the bus's and the peers'; the bus's own default."""
LEASE = 10
FETCHED = 500
"""Messages that plain clients take at once, as the bus does."""
WARM = -1
"""The number of a message before all others, after which connections are there; nobody counts it."""
LOOK = 0.0005


@dataclass(frozen=True, slots=True)
class Store:
    """A prefix on the broker, and so topics and groups that nobody else has."""

    bootstrap: str
    prefix: str
    partitions: int = PARTITIONS

    @property
    def url(self) -> str:
        return f"kafka://{self.bootstrap}/{self.prefix}?lease={LEASE}&partitions={self.partitions}"

    @classmethod
    def of(cls, url: str) -> Store:
        parts = urlsplit(url)
        return cls(parts.netloc, parts.path.strip("/"))

    @property
    def topic(self) -> str:
        """Of those who are not the bus."""
        return f"{self.prefix}.raw"

    @property
    def group(self) -> str:
        """For everybody."""
        return f"{self.prefix}.{GROUP}"


@dataclass(slots=True)
class Place:
    """Set by the command line, before anything runs."""

    directory: Path | None = None
    backlog: int = 200_000
    channels: int = 200
    _cluster: KafkaCluster | None = None
    _folder: tempfile.TemporaryDirectory[str] | None = None
    _made: int = 0
    _kept: dict[str, Store] = field(default_factory=dict)

    def declare(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--directory", type=Path, help="where the broker writes (default: the system's temporary)")
        parser.add_argument("--backlog", type=int, default=self.backlog, help="how many messages a full store has")
        parser.add_argument("--channels", type=int, default=self.channels, help="how many channels are many")

    def read(self, options: argparse.Namespace) -> None:
        self.directory, self.backlog, self.channels = options.directory, options.backlog, options.channels
        where = Path(self.directory or tempfile.gettempdir())
        if (kind := file_system(where)) in NO_DISK:
            raise SystemExit(f"{where} is a {kind}, which is no disk: --directory")
        try:
            from tests.servers.missing import KAFKA, find
        except ImportError as error:
            raise SystemExit(f"the tests' servers want {error.name}: pip install pytest") from None
        if find("kafka") is None:
            raise SystemExit("Kafka, or java, is not here: make servers")
        _report.SERVERS.append(lambda: f"Kafka {KAFKA}, one broker, {PARTITIONS} partitions, no copies")

    @property
    def cluster(self) -> KafkaCluster:
        """Started when it is wanted first; it ends with this process."""
        if self._cluster is None:
            from tests.servers.kafka_cluster import KafkaCluster

            self._folder = tempfile.TemporaryDirectory(prefix="bench", dir=self.directory, ignore_cleanup_errors=True)
            quick = {"file.delete.delay.ms": "1000", "log.segment.delete.delay.ms": "1000"}
            self._cluster = KafkaCluster(Path(self._folder.name), options=quick).start()
        return self._cluster

    def store(self, partitions: int = PARTITIONS) -> Store:
        self._made += 1
        return Store(self.cluster.bootstrap, f"b{self._made}", partitions)

    def kept(self, name: str, partitions: int = PARTITIONS) -> tuple[Store, bool]:
        """One for each name, for all rounds; and whether it is new."""
        fresh = name not in self._kept
        if fresh:
            self._kept[name] = self.store(partitions)
        return self._kept[name], fresh

    def empty(self) -> None:
        """Delete the topics of all but those that are kept."""
        admin = self.cluster.admin()
        kept = tuple(f"{store.prefix}." for store in self._kept.values())
        topics = [name for name in admin.list_topics(timeout=PATIENCE).topics if not name.startswith((*kept, "__"))]
        if topics:
            for deleted in admin.delete_topics(topics, operation_timeout=PATIENCE).values():
                deleted.result(PATIENCE)

    def cpu_ns(self) -> float:
        """All that the broker's threads have used."""
        used = 0
        for task in Path(f"/proc/{self.cluster.brokers[0].pid}/task").iterdir():
            with suppress(OSError):  # it has just ended
                used += int((task / "schedstat").read_text().split()[0])
        return float(used)

    def stop(self) -> None:
        if self._cluster is not None:
            self._cluster.close()
        if self._folder is not None:
            self._folder.cleanup()
        self._cluster = self._folder = None
        self._kept.clear()


PLACE = Place()


def wiped(*, raw: bool = False) -> Store:
    """A fresh one; the topics of the one before are deleted. ``raw``: the peers' topic is there."""
    PLACE.empty()
    store = PLACE.store()
    if raw:
        PLACE.cluster.create_topic(store.topic, partitions=store.partitions)
    return store


class Meter:
    """Wall clock from ``start`` to ``stop``, CPU of this process with all its threads, and CPU of the broker."""

    def __init__(self) -> None:
        self.began = self.wall_ns = self.cpu_ns = 0
        self.server_ns = 0.0

    def start(self) -> None:
        self._server_began = PLACE.cpu_ns()
        self._cpu_began = time.process_time_ns()
        self.began = time.monotonic_ns()

    def stop(self) -> None:
        self.wall_ns = time.monotonic_ns() - self.began
        self.cpu_ns = time.process_time_ns() - self._cpu_began
        self.server_ns = max(1.0, PLACE.cpu_ns() - self._server_began)

    def __enter__(self) -> Meter:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def per(self, n: int) -> dict[str, float]:
        return {
            "wall_ns": self.wall_ns / n,
            "cpu_ns": self.cpu_ns / n,
            "server_ns": self.server_ns / n,
            "per_s": n * 1e9 / self.wall_ns,
        }


class Clock:
    """Runs from the first message that is handled on: joining a group takes as long for one message as for many."""

    def __init__(self) -> None:
        self.meter = Meter()
        self.count = 0
        self.asked = time.monotonic_ns()

    def handled(self, count: int = 1) -> None:
        if not self.count:
            self.meter.start()
        self.count += count

    def per(self, n: int) -> dict[str, float]:
        return {**self.meter.per(n), "first_ns": float(self.meter.began - self.asked)}


def counted(clock: Clock, handler: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    """The handler, which starts the clock."""

    async def handle(item: Any) -> None:
        clock.handled()
        await handler(item)

    return handle


def counted_batches(clock: Clock, handler: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    """The same for handlers of batches."""

    async def handle(items: list[Message]) -> None:
        clock.handled(len(items))
        await handler(items)

    return handle


# The bus


@asynccontextmanager
async def bus_on(store: Store, *, fresh: bool = True, warm: Payload | None = None) -> AsyncIterator[MessageBus]:
    """The bus on a store; with a group that gets what is published from then on, first of all ``warm``."""
    async with MessageBus(store.url) as bus:
        if fresh:
            await keep(bus, CHANNEL)
        if warm is not None:
            await bus.publish(CHANNEL, warm, content_type=JSON)
        yield bus


async def acked(bus: MessageBus, subscribed: Subscription, n: int, handled: Callable[[], int]) -> None:
    """Until so many messages are handled, and then acknowledged. Raises TimeoutError."""

    async def all_of_them() -> None:
        while handled() < n:  # noqa: ASYNC110
            await asyncio.sleep(LOOK)
        while sum(each.acked for each in bus.metrics().subscriptions) < n:  # noqa: ASYNC110
            await asyncio.sleep(LOOK)

    await asyncio.wait_for(all_of_them(), PATIENCE)


# The plain client


def producer_of(store: Store, *, transactional: bool = False) -> Any:
    from confluent_kafka import Producer

    return Producer(
        {
            "bootstrap.servers": store.bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 0,
            "queue.buffering.max.messages": 100_000,
            **({"transactional.id": store.prefix} if transactional else {}),
        }
    )


def _id(payload: Payload) -> str:
    return f"{payload['i'] & 0xFFFFFFFF:032x}"


def _partition(payload: Payload, store: Store) -> int:
    """As the bus finds one, so that a batch has as many."""
    return zlib.crc32(_id(payload).encode()) % store.partitions


def headers(payload: Payload) -> list[tuple[str, str | bytes | None]]:
    """Those that ours have, as long as ours, with less work: the time is always the same."""
    return [
        ("ce_specversion", "1.0"),
        ("ce_id", _id(payload)),
        ("ce_source", "urn:neuralcore:bus:0123456789abcdef-01234567"),
        ("ce_type", CHANNEL),
        ("ce_time", "2026-01-01T00:00:00.000000000Z"),
        ("content-type", JSON),
    ]


def sent(producer: Any, store: Store, batches: Sequence[Sequence[Payload]], *, sticky: bool = False) -> None:
    """Each batch is stored before the next begins. Spread over the partitions as the bus's are, or, ``sticky``, as the
    client library likes it best: the same one for 10 ms.
    """
    wrong: list[Any] = []

    def told(error: Any, record: object) -> None:
        if error is not None:
            wrong.append(error)

    for batch in batches:
        for payload in batch:
            partition = -1 if sticky else _partition(payload, store)
            producer.produce(store.topic, encoded(payload), None, partition, on_delivery=told, headers=headers(payload))
        left = producer.flush(PATIENCE)
        if left or wrong:
            raise CheckFailed(f"raw: {left} messages were not stored: {wrong[:1]}")


class AsyncProducer:
    """The same client on asyncio: a thread polls, and each record has a future."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._producer = producer_of(store)
        self._loop = asyncio.get_running_loop()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping:
            self._producer.poll(0.1)

    async def publish(self, payload: Payload) -> None:
        future: asyncio.Future[None] = self._loop.create_future()

        def told(error: Any, record: object) -> None:
            self._loop.call_soon_threadsafe(stored, error)

        def stored(error: Any) -> None:
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(CheckFailed(f"raw: {error}"))

        self._producer.produce(
            self._store.topic,
            encoded(payload),
            None,
            _partition(payload, self._store),
            on_delivery=told,
            headers=headers(payload),
        )
        await future

    async def close(self) -> None:
        self._stopping = True
        await asyncio.to_thread(self._thread.join)


@contextmanager
def consumer_of(
    store: Store, *, joined: bool = False, topic: str | None = None, group: str | None = None
) -> Iterator[Any]:
    """Of the group and the peers' topic, unless others are given; ``joined``: when it has its partitions."""
    from confluent_kafka import Consumer

    consumer = Consumer(
        {
            "bootstrap.servers": store.bootstrap,
            "group.id": store.group if group is None else f"{store.prefix}.{group}",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": LEASE * 1000,
            "fetch.wait.max.ms": 100,
        }
    )
    try:
        consumer.subscribe([store.topic if topic is None else topic])
        deadline = time.monotonic() + PATIENCE
        while joined and not consumer.assignment():
            if consumer.poll(0.02) is not None or time.monotonic() > deadline:
                raise CheckFailed("raw: no partitions, or a message before it was published")
        yield consumer
    finally:
        consumer.close()


def read_some(consumer: Any, timeout: float, most: int = FETCHED) -> list[Any]:
    """Up to so many, and no waiting for more when there is one: ``consume(500, timeout)`` would."""
    first = consumer.poll(timeout)
    if first is None:
        return []
    found = [first, *consumer.consume(most - 1, 0)]
    for record in found:
        if record.error() is not None:
            raise CheckFailed(f"raw: {record.error()}")
    return found


def read_all(store: Store, n: int) -> list[bytes]:
    """What the peers' topic has, but for the first message of all."""
    found: list[bytes] = []
    with consumer_of(store) as consumer:
        deadline = time.monotonic() + PATIENCE
        while len(found) < n + 1 and time.monotonic() < deadline:
            found += [record.value() for record in read_some(consumer, 0.2)]
    return [body for body in found if not body.startswith(b'{"i":-1')]


def committed(store: Store, topic: str) -> int:
    """How many messages of a topic the group has committed."""
    from confluent_kafka import ConsumerGroupTopicPartitions

    asked = PLACE.cluster.admin().list_consumer_group_offsets([ConsumerGroupTopicPartitions(store.group)])
    partitions = asked[store.group].result(PATIENCE).topic_partitions or []
    return sum(max(0, each.offset) for each in partitions if each.topic == topic)


def check_committed(store: Store, topic: str, n: int) -> None:
    """Raise CheckFailed unless so many are, or are soon."""
    deadline = time.monotonic() + PATIENCE
    while (found := committed(store, topic)) != n:
        if time.monotonic() > deadline:
            raise CheckFailed(f"{topic}: {found} messages are committed, {n} were handled")
        time.sleep(0.05)


def warm(text: Text) -> Payload:
    return {"i": WARM, "text": text.text}


def but_warm(handler: Callable[[Any], Any], sink: Sink) -> Callable[[Any], Awaitable[None]]:
    """The handler, for all messages but the first."""

    async def handle(item: Any) -> None:
        if getattr(item, "payload", item)["i"] != WARM:
            answer = handler(item)
            if answer is not None:
                await answer

    return handle
