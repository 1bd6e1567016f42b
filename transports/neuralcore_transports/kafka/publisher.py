"""Hands records to the brokers, and learns in a thread of its own what became of each."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Producer
from msgspec import Struct

from neuralcore.messaging.errors import Closed
from neuralcore_transports.kafka.clients import Clients, log
from neuralcore_transports.kafka.poller import Call
from neuralcore_transports.kafka.records import Header, Record
from neuralcore_transports.kafka.silence import Silence
from neuralcore_transports.waiting import woken

__all__ = ["Outgoing", "Publisher", "Sent", "handed_over", "learn"]

_TURN: Final = 0.5
_ROOM: Final = 0.01
"""Seconds after which a full queue is tried again, if nothing was heard of it before."""
_LEARNT: Final = 5.0
"""Seconds after which it is not known how many partitions there are."""


class Outgoing(Struct, frozen=True):
    topic: str
    partition: int
    value: bytes
    key: str | None
    headers: list[Header]


class Sent(Struct, frozen=True):
    """What became of a record."""

    error: KafkaError | None = None
    offset: int = -1


class _Batch:
    """Records that were handed over together."""

    __slots__ = ("_call", "_done", "_heard", "_left", "_lock", "sent")

    def __init__(self, count: int, call: Call, done: Callable[[], None], heard: Callable[[], None]) -> None:
        """``heard`` is called in the thread when brokers have stored the last of them."""
        self._left = count
        self._lock = threading.Lock()
        self._call = call
        self._done = done
        self._heard = heard
        self.sent: list[Sent | None] = [None] * count

    def told(self, index: int, error: KafkaError | None, record: Record | None) -> None:
        """In the thread, or on the loop."""
        self.sent[index] = Sent(error) if record is None else Sent(error, record.offset() or 0)
        with self._lock:
            self._left -= 1
            last = not self._left
        if last:
            if error is None:
                self._heard()
            self._call(self._done)


class _Generation:
    """One producer and its thread. One that failed for good is left behind, and the next one made."""

    def __init__(self, producer: Producer, name: str, silence: Silence, lost: Callable[[_Generation], None]) -> None:
        """``lost`` hears in the thread that this one has lost all brokers."""
        self.producer = producer
        self.stopping = False
        self.silence = silence
        self._lost = lost
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self.stopping or len(self.producer):
            try:
                self.producer.poll(_TURN)
                if not self.stopping and self.silence.lasts(self.producer):
                    self._lost(self)
            except Exception:  # noqa: BLE001 - what a callback raises; without this thread every publish would hang
                log.exception("a callback of the producer failed")
                time.sleep(_ROOM)

    def end(self, timeout: float) -> None:
        self.stopping = True
        try:
            self.producer.flush(timeout)
        except Exception:  # noqa: BLE001 - as above
            log.exception("a callback of the producer failed")
        self.producer.purge()
        self.thread.join(_TURN + timeout)


class Publisher:
    def __init__(self, clients: Clients, call: Call, *, name: str, silence: Callable[[str], Silence]) -> None:
        """``silence``: of a client with this name."""
        self._clients = clients
        self._silence = silence
        self._call = call
        self._name = name
        self._current: _Generation | None = None
        self._closed = False
        self._making = threading.Lock()
        """It is made and closed in other threads too."""
        self._room = asyncio.Event()

    async def send(self, records: Sequence[Outgoing]) -> list[Sent]:
        """In their order, for each partition. Waits for all of them: none of them is in doubt afterwards but those
        whose error says so. Raises Closed.
        """
        loop = asyncio.get_running_loop()
        finished: asyncio.Future[None] = loop.create_future()

        def done() -> None:
            self._room.set()
            if not finished.done():
                finished.set_result(None)

        if not records:
            return []
        generation = self._generation()
        batch = _Batch(len(records), self._call, done, generation.silence.heard)
        learned: set[str] = set()
        for index, record in enumerate(records):
            told = partial(batch.told, index)
            while (error := _handed_over(generation, record, told)) is not None:
                if error.code() == KafkaError._QUEUE_FULL:
                    self._room.clear()
                    await woken(self._room, _ROOM)
                elif error.code() == KafkaError._UNKNOWN_PARTITION and record.topic not in learned:
                    learned.add(record.topic)
                    await self._learn(generation)
                else:
                    told(error, None)
                    break
        await finished
        sent = [each for each in batch.sent if each is not None]
        if any(each.error is not None and each.error.fatal() for each in sent):
            self._leave(generation)
        return sent

    async def _learn(self, generation: _Generation) -> None:
        """A topic may have more partitions by now."""
        try:
            await asyncio.get_running_loop().run_in_executor(None, learn, generation.producer)
        except KafkaException as error:
            log.info("a producer cannot learn which partitions there are: %s", error)

    def start(self) -> None:
        """An idempotent producer has to be let in first, which takes a moment. Raises Closed."""
        self._generation()

    def _generation(self) -> _Generation:
        with self._making:
            if self._closed:
                raise Closed("the Kafka transport")
            if self._current is None:
                self._current = _Generation(
                    self._clients.producer(),
                    self._name,
                    self._silence("the producer"),
                    lambda generation: self._call(self._leave, generation),
                )
            return self._current

    def _leave(self, generation: _Generation) -> None:
        """It can do nothing more: what it still has is given up, and its records are in doubt."""
        if self._current is generation:
            self._current = None
            log.warning("a producer is given up, another one takes its place")
            generation.stopping = True
            generation.producer.purge()

    def close(self, timeout: float) -> None:
        """Blocks until everything was sent, or the time is over."""
        with self._making:
            self._closed = True
            left, self._current = self._current, None
        if left is not None:
            left.end(timeout)


def handed_over(producer: Producer, record: Outgoing, told: Callable[..., None]) -> bool:
    """False when the queue is full. Raises KafkaException for what is refused here and now."""
    try:
        producer.produce(
            record.topic,
            record.value,
            record.key,
            record.partition,
            on_delivery=told,
            headers=record.headers,
        )
    except BufferError:
        return False
    return True


def learn(producer: Producer) -> None:
    """Blocks until it knows all partitions that there are: asked for one topic, brokers might make it. Raises
    KafkaException.
    """
    producer.list_topics(timeout=_LEARNT)


def _handed_over(generation: _Generation, record: Outgoing, told: Callable[..., None]) -> KafkaError | None:
    """Why not."""
    if generation.stopping:  # soon nobody polls it any more
        return KafkaError(KafkaError._PURGE_QUEUE)
    try:
        return None if handed_over(generation.producer, record, told) else KafkaError(KafkaError._QUEUE_FULL)
    except KafkaException as error:  # such as one that is too large
        found: KafkaError = error.args[0]
        return found
