"""Who publishes and consumes beside the bus, on Kafka: each as its documentation shows, with its best options.

``python -m benchmarks._kafka_peers KIND URL N NAP_MS SIZE`` is the process that consumes. It says ``ready`` once what
is published from then on reaches it, handles n messages, and says which it has handled, at which moments, when the
last was settled, and how much CPU that took. Handlers record the moment at which they begin, then sleep for the nap;
20 of them at once when they do. Settled is what the peer is done with: its commit is begun, or left to the client's
timer.

Celery is no peer here, and was not run: in kombu 5.7's transport ``confluentkafka``, by its source, an acknowledgement
commits all that the worker has read, also what its other threads still handle or have failed at, and the default number
of partitions is one. taskiq runs on Kafka: see Taskiq.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import sys
import time
import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from importlib import import_module as imported
from typing import Any, ClassVar

import msgspec

from benchmarks._bus import CHANNEL
from benchmarks._durable import GROUP
from benchmarks._kafka import (
    FETCHED,
    PARTITIONS,
    WARM,
    AsyncProducer,
    Store,
    acked,
    bus_on,
    consumer_of,
    read_some,
)
from benchmarks._loads import CONCURRENCY
from benchmarks._redis import JSON, PATIENCE, Payload, Text, publish_at_once
from neuralcore._core import Message

__all__ = ["CONCURRENCY", "MODULE", "PEERS", "SKIPPED", "Bus", "Publisher", "Raw", "at_once"]

MODULE = "benchmarks._kafka_peers"
TASK = "bench.handle"
LOOK = 0.0005

Parts = Sequence[Sequence[Payload]]


class Seen:
    """What was handled, and when. A message with another text than this is none of those that were published."""

    def __init__(self, n: int, nap: float, text: Text) -> None:
        self.n, self.nap, self._text = n, nap, text.text
        self.numbers: list[int] = []
        self.moments: list[int] = []
        self._cpu = 0

    async def handle(self, payload: Any) -> None:
        if payload["i"] == WARM:
            return
        self.moments.append(time.monotonic_ns())
        self.numbers.append(payload["i"] if payload["text"] == self._text else -2)
        if self.nap:
            await asyncio.sleep(self.nap)

    @property
    def whole(self) -> bool:
        return len(self.numbers) >= self.n

    async def all_of_them(self) -> None:
        while not self.whole:  # noqa: ASYNC110
            await asyncio.sleep(LOOK)

    def ready(self) -> None:
        self._cpu = time.process_time_ns()
        print("ready", flush=True)

    def end(self) -> None:
        """Everything is settled."""
        end, cpu = time.monotonic_ns(), time.process_time_ns() - self._cpu
        told = {"numbers": self.numbers, "moments": self.moments, "end": end, "cpu": cpu}
        print(json.dumps(told), flush=True)


class Publisher(ABC):
    """Open on a store. ``kind`` is how the consuming process is called that belongs to it."""

    kind: ClassVar[str]
    name: ClassVar[str]
    module: ClassVar[str] = "confluent_kafka"
    requirement: ClassVar[str] = "confluent-kafka>=2.16"
    naps: ClassVar[bool] = True
    """Whether it can have 20 handlers at once."""
    share: ClassVar[float] = 1.0
    note: ClassVar[str] = ""

    @classmethod
    @abstractmethod
    def open(cls, store: Store) -> Any:
        """An asynchronous context manager of itself."""

    @classmethod
    @abstractmethod
    async def consume(cls, store: Store, seen: Seen) -> None:
        """In the other process."""

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
    async def open(cls, store: Store) -> AsyncIterator[Bus]:
        async with bus_on(store) as bus:
            yield cls(bus)

    async def publish(self, payload: Payload) -> object:
        return await self._bus.publish(CHANNEL, payload, content_type=JSON)

    async def publish_all(self, parts: Parts) -> None:
        await publish_at_once(self._bus, parts)

    @classmethod
    async def consume(cls, store: Store, seen: Seen) -> None:
        came = 0

        async def handler(message: Message) -> None:
            nonlocal came
            came += 1
            await seen.handle(message.payload)

        async with bus_on(store, fresh=False) as bus:
            concurrency = CONCURRENCY if seen.nap else 1
            subscribed = bus.subscribe(CHANNEL, handler, group=GROUP, concurrency=concurrency, capacity=1_000)
            await subscribed.ready()
            await _joined(store)
            seen.ready()
            await acked(bus, subscribed, seen.n + 1, lambda: came)
            seen.end()
            await subscribed.unsubscribe(timeout=PATIENCE)


class Raw(Publisher):
    """A future for each record; consumes up to 500 and begins a commit for them. With naps a commit says of each
    partition what is done from its start on.
    """

    kind = name = "raw"
    note = "raw confluent-kafka: no retries, no dead letters, nothing about duplicates of those who publish again"

    def __init__(self, producer: AsyncProducer) -> None:
        self._producer = producer

    @classmethod
    @asynccontextmanager
    async def open(cls, store: Store) -> AsyncIterator[Raw]:
        producer = AsyncProducer(store)
        yield cls(producer)
        await producer.close()

    async def publish(self, payload: Payload) -> object:
        await self._producer.publish(payload)
        return None

    @classmethod
    async def consume(cls, store: Store, seen: Seen) -> None:
        with consumer_of(store, joined=True) as consumer:
            seen.ready()
            if seen.nap:
                await at_once(consumer, seen.handle, seen.n, CONCURRENCY)
            else:
                while not seen.whole:
                    for record in (found := read_some(consumer, 0.1)):
                        dict(record.headers())  # as it takes for knowing which message it is
                        await seen.handle(msgspec.json.decode(record.value()))
                    if found:
                        consumer.commit(asynchronous=True)
            seen.end()


async def at_once(consumer: Any, handle: Callable[[Any], Awaitable[None]], n: int, workers: int) -> None:
    """Workers at a queue, which a thread fills; before it reads it commits what is done from the start on. Until ``n``
    are handled and committed.
    """
    queue: asyncio.Queue[Any] = asyncio.Queue(FETCHED)
    out: dict[tuple[str, int], deque[list[Any]]] = {}
    done = 0

    def turn() -> list[Any]:
        _commit_done(consumer, out.values())
        return read_some(consumer, 0.01)

    async def fetch() -> None:
        while True:
            for record in await asyncio.to_thread(turn):
                dict(record.headers())  # as it takes for knowing which message it is
                state = [record, False]
                out.setdefault((record.topic(), record.partition()), deque()).append(state)
                await queue.put(state)

    async def work() -> None:
        nonlocal done
        while True:
            state = await queue.get()
            payload = msgspec.json.decode(state[0].value())
            await handle(payload)
            state[1] = True
            done += payload["i"] != WARM

    tasks = [asyncio.create_task(each) for each in (fetch(), *(work() for _ in range(workers)))]
    while done < n:  # noqa: ASYNC110
        await asyncio.sleep(LOOK)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.to_thread(_commit_done, consumer, out.values())


def _commit_done(consumer: Any, parts: Iterable[deque[list[Any]]]) -> None:
    for states in list(parts):
        last = None
        while states and states[0][1]:
            last = states.popleft()[0]
        if last is not None:
            consumer.commit(message=last, asynchronous=True)


def _faststream_broker(store: Store) -> Any:
    """Without its log, and without validation of what handlers are given."""
    return imported("faststream.confluent").KafkaBroker(
        store.bootstrap,
        logger=None,
        apply_types=False,
        acks="all",
        enable_idempotence=True,
        allow_auto_create_topics=False,
    )


class FastStream(Publisher):
    """It commits after each message, which it waits for in a thread, as it does for each message."""

    kind = name = "FastStream"
    module, requirement = "faststream.confluent", "faststream[confluent]>=0.7.8"
    naps = False
    share = 0.5
    note = "FastStream: one handler at once where a message is acknowledged after its handler (its own rule)"
    options: ClassVar[dict[str, Any]] = {"max_workers": 1}
    policy: ClassVar[str] = "ACK"

    def __init__(self, broker: Any, store: Store) -> None:
        self._broker = broker
        self._topic = store.topic

    @classmethod
    @asynccontextmanager
    async def open(cls, store: Store) -> AsyncIterator[FastStream]:
        broker = _faststream_broker(store)
        await broker.start()
        try:
            yield cls(broker, store)
        finally:
            await broker.stop()

    async def publish(self, payload: Payload) -> object:
        return await self._broker.publish(payload, topic=self._topic)

    @classmethod
    async def consume(cls, store: Store, seen: Seen) -> None:
        broker = _faststream_broker(store)
        subscriber = broker.subscriber(
            store.topic,
            group_id=store.group,
            auto_offset_reset="earliest",
            ack_policy=imported("faststream").AckPolicy[cls.policy],
            no_reply=True,
            **(cls.options | ({"max_workers": CONCURRENCY} if seen.nap else {})),
        )
        subscriber(cls.handler(seen))
        await broker.start()
        await _joined(store)
        seen.ready()
        await seen.all_of_them()
        if seen.nap:
            await asyncio.sleep(seen.nap)  # the last handlers have just begun
        seen.end()
        await broker.stop()

    @classmethod
    def handler(cls, seen: Seen) -> Callable[[Any], Awaitable[None]]:
        async def handle(payload: dict[str, Any]) -> None:
            await seen.handle(payload)

        return handle


class FastStreamBatches(FastStream):
    """A handler gets a list of up to 500, and one commit is for all of it; it waits 1 ms for a list to be full."""

    kind = name = "FastStream, batches"
    share = 1.0
    note = "FastStream, batches: a handler that fails at one message has failed at all of its list"
    options: ClassVar[dict[str, Any]] = {"batch": True, "max_records": FETCHED, "polling_interval": 0.001}

    @classmethod
    def handler(cls, seen: Seen) -> Callable[[Any], Awaitable[None]]:
        async def handle(payloads: list[dict[str, Any]]) -> None:
            for payload in payloads:
                await seen.handle(payload)

        return handle


class FastStreamFirst(FastStream):
    """As it is when it is told nothing."""

    kind = name = "FastStream, ack first"
    naps = True
    share = 0.5
    note = "FastStream, ack first: a timer commits what was read, handled or not: a crash loses messages"
    policy = "ACK_FIRST"


def _taskiq_broker(store: Store, handle: Callable[[Payload], Any]) -> tuple[Any, Any]:
    """The broker, and the task that its publishers call."""
    topic = imported("kafka.admin").NewTopic(store.topic, PARTITIONS, 1)
    broker = imported("taskiq_aio_kafka").AioKafkaBroker(store.bootstrap, kafka_topic=topic)
    partitioner = imported("aiokafka.partitioner").DefaultPartitioner()
    assignor = imported("aiokafka.coordinator.assignors.roundrobin").RoundRobinPartitionAssignor
    # its own partitioner and assignor are another library's, and fail with what pip installs
    broker.configure_producer(acks="all", enable_idempotence=True, partitioner=partitioner)
    broker.configure_consumer(
        group_id=store.group,
        auto_offset_reset="earliest",
        partition_assignment_strategy=(assignor,),
    )

    async def task(payload: dict[str, Any]) -> None:
        await handle(payload)

    return broker, broker.register_task(task, task_name=TASK)


class Taskiq(Publisher):
    """Over aiokafka. taskiq-aio-kafka 1.0 with what pip installs today sends nothing and joins no group: its defaults
    for partitioner and assignor are kafka-python's, which aiokafka does not take. With aiokafka's own it runs.
    """

    kind = name = "taskiq"
    module, requirement = "taskiq_aio_kafka", "taskiq-aio-kafka>=1.0"
    share = 0.5
    note = "taskiq: a timer commits what was read, handled or not: a crash loses messages; results are not stored"

    def __init__(self, task: Any) -> None:
        self._task = task

    @classmethod
    @asynccontextmanager
    async def open(cls, store: Store) -> AsyncIterator[Taskiq]:
        broker, task = _taskiq_broker(store, _never)
        await broker.startup()
        try:
            yield cls(task)
        finally:
            await broker.shutdown()

    async def publish(self, payload: Payload) -> object:
        return await self._task.kiq(payload)

    @classmethod
    async def consume(cls, store: Store, seen: Seen) -> None:
        broker, _ = _taskiq_broker(store, seen.handle)
        broker.is_worker_process = True
        await broker.startup()
        receiver = asyncio.create_task(
            imported("taskiq.api").run_receiver_task(
                broker, max_async_tasks=CONCURRENCY, max_prefetch=100, validate_params=False
            )
        )
        await _joined(store)
        seen.ready()
        await seen.all_of_them()
        if seen.nap:
            await asyncio.sleep(seen.nap)
        seen.end()
        receiver.cancel()
        await asyncio.gather(receiver, return_exceptions=True)


async def _never(payload: Payload) -> None:
    raise RuntimeError("the publishing process handles nothing")


async def _joined(store: Store) -> None:
    """The group is at rest, and somebody has all partitions."""
    from confluent_kafka import ConsumerGroupState, KafkaException
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": store.bootstrap})

    def there() -> bool:
        with suppress(KafkaException):
            found = admin.describe_consumer_groups([store.group])[store.group].result(PATIENCE)
            held = sum(len(member.assignment.topic_partitions) for member in found.members)
            return bool(found.state == ConsumerGroupState.STABLE and held == PARTITIONS)
        return False

    deadline = time.monotonic() + PATIENCE
    while not await asyncio.to_thread(there):
        if time.monotonic() > deadline:
            raise RuntimeError("nobody got the partitions")
        await asyncio.sleep(0.02)


_KNOWN: tuple[type[Publisher], ...] = (FastStream, FastStreamBatches, FastStreamFirst, Taskiq)


def _here(peer: type[Publisher]) -> bool:
    try:
        return importlib.util.find_spec(peer.module) is not None
    except ImportError:
        return False


PEERS = tuple(peer for peer in _KNOWN if _here(peer))
SKIPPED = (
    *(
        f'left out: {peer.name} is not installed; pip install "{peer.requirement}"'
        for peer in _KNOWN
        if peer not in PEERS
    ),
    "left out: Celery; its transport for Kafka acknowledges what other threads still handle",
)


def _child(kind: str, url: str, n: str, nap_ms: str, size: str) -> None:
    seen = Seen(int(n), float(nap_ms) / 1000, Text(int(size)))
    warnings.simplefilter("ignore")
    if kind != Bus.kind:
        logging.disable()
    known: tuple[type[Publisher], ...] = (Bus, Raw, *PEERS)
    peer = next(peer for peer in known if peer.kind == kind)
    asyncio.run(peer.consume(Store.of(url), seen))
    sys.stdout.flush()
    os._exit(0)  # what peers have running in the background does not matter


if __name__ == "__main__":
    _child(*sys.argv[1:])
