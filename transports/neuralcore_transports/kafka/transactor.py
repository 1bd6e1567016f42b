"""Records, and what a group has settled, in one of Kafka's transactions.

A producer has one transaction at a time, so those that are wanted meanwhile go together in the next. All of it blocks.

Who settles by a transaction says which generation of its group it knows: brokers refuse it when others have its
partitions by then (KIP-447). So each process has transactional names of its own, and none has to fence another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from neuralcore.messaging.errors import NeuralCoreError, NotStored, PublishError
from neuralcore_transports.kafka.browser import Browser
from neuralcore_transports.kafka.clients import Clients, log
from neuralcore_transports.kafka.errors import KafkaRefused, code_of, group_is_changing, record_is_refused, translated
from neuralcore_transports.kafka.publisher import Outgoing, handed_over, learn
from neuralcore_transports.kafka.records import Record

__all__ = ["InDoubt", "Settled", "Transactor"]

T = TypeVar("T")

_SOON: Final = 0.05
_ROOM: Final = 0.01

Settled = tuple[list[TopicPartition], Any]
"""What to commit, and the group's metadata as its consumer knows them."""
_Stored = tuple[str, int, int]
"""Topic, partition, offset."""


class InDoubt(Exception):
    """Nobody can tell whether it has happened."""


class Transactor:
    """For one thread at a time."""

    def __init__(self, clients: Clients, browser: Browser, name: str, *, timeout: float, patience: float, where: str):
        """``name``: of this process alone, and the same for all its producers: the next one ends what one before it
        has left open.
        """
        self._clients = clients
        self._browser = browser
        self._name = name
        self._timeout = timeout
        self._patience = patience
        self._where = where
        self._producer: Producer | None = None

    def commit(self, records: Sequence[Outgoing], settled: Callable[[], Settled] | None = None) -> None:
        """``settled`` is asked at each try, and may raise. Raises that, PublishError, KafkaRefused and NotStored when
        nothing of it has happened, and InDoubt.
        """
        deadline = time.monotonic() + self._patience
        try:
            while not self._try(records, None if settled is None else settled(), deadline):
                time.sleep(_SOON)
        except (NeuralCoreError, InDoubt):
            raise
        except Exception:
            self._leave()  # it is in the middle of something
            raise

    def _try(self, records: Sequence[Outgoing], settled: Settled | None, deadline: float) -> bool:
        """False when the group was changing: nothing of it has happened."""
        stored: list[_Stored] = []
        try:
            producer = self._ready(deadline)
            producer.begin_transaction()
        except KafkaException as error:
            self._leave()
            raise self._refused(error) from error
        try:
            self._fill(producer, records, settled, stored, deadline)
        except KafkaException as error:
            self._abort(producer)
            if group_is_changing(error) and time.monotonic() < deadline:
                return False
            raise self._refused(error) from error
        try:
            _tried(producer.commit_transaction, deadline)
        except KafkaException as error:
            if error.args[0].txn_requires_abort():
                self._abort(producer)
                raise self._refused(error) from error
            self._find_out(stored, error)
        return True

    def _ready(self, deadline: float) -> Producer:
        if self._producer is None:
            made = self._clients.transactional(self._name)
            _tried(made.init_transactions, deadline)
            self._producer = made
        return self._producer

    def _fill(
        self,
        producer: Producer,
        records: Sequence[Outgoing],
        settled: Settled | None,
        stored: list[_Stored],
        deadline: float,
    ) -> None:
        failed: list[KafkaError] = []

        def told(error: KafkaError | None, record: Record) -> None:
            if error is not None:
                failed.append(error)
            else:
                stored.append((record.topic(), record.partition(), record.offset()))

        for record in records:
            try:
                _hand_over(producer, record, told)
            except KafkaException as error:
                if code_of(error) != KafkaError._UNKNOWN_PARTITION:
                    raise
                learn(producer)  # its topic has grown
                _hand_over(producer, record, told)
        producer.flush(max(0.0, deadline - time.monotonic()))
        if failed:
            raise KafkaException(failed[0])
        if len(stored) < len(records):  # its end is not asked for, so it is known that nothing has happened
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no broker answered for its records in time"))
        if settled is not None:
            _tried(partial(producer.send_offsets_to_transaction, *settled), deadline)

    def _abort(self, producer: Producer) -> None:
        """If that fails, the next producer does it."""
        try:
            _tried(producer.abort_transaction, time.monotonic() + self._timeout)
        except KafkaException as error:
            log.info("a transaction of %s could not be undone, its next producer does it: %s", self._name, error)
            self._leave()

    def _find_out(self, stored: Sequence[_Stored], reason: KafkaException) -> None:
        """No answer came. A new producer of the same name ends the transaction, one way or the other; then a record of
        it can be read, or not.
        """
        log.warning("the end of a transaction of %s was not answered (%s); looking for it", self._name, reason)
        self._leave()
        try:
            self._ready(time.monotonic() + self._patience)
            there = self._is_there(stored[0]) if stored else None
        except Exception as error:
            raise InDoubt(f"{self._where}: {error}") from error
        if there is None:
            raise InDoubt(f"{self._where}: {reason.args[0].str()}") from reason
        if not there:
            raise self._refused(reason) from reason

    def _is_there(self, place: _Stored) -> bool | None:
        """None when what is kept begins behind it."""
        topic, partition, offset = place
        at = topic, partition
        found = self._browser.read({at: offset}, 1)[at]
        if found and found[0].offset() == offset:
            return True
        return False if self._browser.ends([at])[at][0] <= offset else None

    def _refused(self, error: KafkaException) -> Exception:
        if record_is_refused(error.args[0]):
            return PublishError(error.args[0].str())
        found = translated(error, self._where)
        return found if isinstance(found, KafkaRefused) else NotStored("kafka", f"{self._where}: {error.args[0].str()}")

    def _leave(self) -> None:
        """Not closed: its threads end with its last reference."""
        self._producer = None

    close = _leave


def _hand_over(producer: Producer, record: Outgoing, told: Callable[..., None]) -> None:
    while not handed_over(producer, record, told):
        producer.poll(_ROOM)


def _tried(what: Callable[[float], T], deadline: float) -> T:
    """Until then, as long as the library says that it may be tried again."""
    while True:
        left = deadline - time.monotonic()
        try:
            return what(max(_SOON, left))
        except KafkaException as error:
            if not error.args[0].retriable() or left <= 0:
                raise
            time.sleep(_SOON)
