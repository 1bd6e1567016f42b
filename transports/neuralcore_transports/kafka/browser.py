"""Reads here and there: pages of messages, ends of partitions, the offsets of times and ids. All of it blocks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeVar, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from neuralcore.messaging.errors import Unavailable
from neuralcore_transports.kafka.administration import EARLIEST, LATEST, Administration, Place, at_time
from neuralcore_transports.kafka.errors import position_is_gone, translated
from neuralcore_transports.kafka.records import Record

__all__ = ["Browser", "Place"]

T = TypeVar("T")

_BATCH: Final = 500
_TRIES: Final = 3
"""Where what was to be read was deleted just now."""


class Browser:
    """One consumer, made when it is first wanted, for one caller at a time."""

    def __init__(
        self, make: Callable[[], Consumer], administration: Administration, *, timeout: float, where: str
    ) -> None:
        self._make = make
        self._administration = administration
        self._timeout = timeout
        self._where = where
        self._lock = threading.Lock()
        self._looked_up: set[str] = set()
        self._made: Consumer | None = None

    def ends(self, places: Sequence[Place]) -> dict[Place, tuple[int, int]]:
        """The offsets of the oldest message and of the next one. Raises Unavailable."""
        oldest = self._administration.offsets(places, EARLIEST)
        following = self._administration.offsets(places, LATEST)
        return {place: (oldest[place], following[place]) for place in places}

    def at(self, places: Sequence[Place], wall_ms: int) -> dict[Place, int]:
        """The offsets of the first messages that were stored then or later. Raises Unavailable."""
        found = self._administration.offsets(places, at_time(wall_ms))
        none = [place for place, offset in found.items() if offset < 0]
        return found | self._administration.offsets(none, LATEST)

    def read(self, starts: Mapping[Place, int], limit: int) -> dict[Place, list[Record]]:
        """So many of each, or what there is. Raises Unavailable."""
        return self._do(lambda client: self._read(client, starts, limit))

    def scan(self, places: Sequence[Place], wanted: Callable[[Record], bool]) -> Record | None:
        """The first that is wanted, of all that is kept. Raises Unavailable."""
        starts = {place: ends[0] for place, ends in self.ends(places).items()}
        while starts:
            found = self.read(starts, _BATCH)
            for record in (record for records in found.values() for record in records):
                if wanted(record):
                    return record
            starts = {place: records[-1].offset() + 1 for place, records in found.items() if records}
        return None

    def _read(self, client: Consumer, starts: Mapping[Place, int], limit: int) -> dict[Place, list[Record]]:
        ends = self.ends(list(starts))
        firsts = {place: max(start, ends[place][0]) for place, start in starts.items()}
        going = {place: first for place, first in firsts.items() if first < ends[place][1]}
        found: dict[Place, list[Record]] = {place: [] for place in starts}
        if not going:
            return found
        for topic in {topic for topic, _ in going} - self._looked_up:  # else a new topic's leader is found much later
            client.list_topics(topic, self._timeout)
            self._looked_up.add(topic)
        client.assign([TopicPartition(*place, start) for place, start in going.items()])
        try:
            open_ones = set(going)
            for record in self._records(client):
                place = (record.topic(), record.partition())
                if place not in open_ones:
                    continue
                error = record.error()
                if error is None:
                    if record.offset() < ends[place][1]:
                        found[place].append(record)
                elif error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                if error is not None or len(found[place]) >= limit or record.offset() >= ends[place][1] - 1:
                    open_ones.discard(place)
                    client.incremental_unassign([TopicPartition(*place)])
                if not open_ones:
                    return found
        finally:
            client.unassign()
        return found

    def _records(self, client: Consumer) -> Iterator[Record]:
        deadline = time.monotonic() + self._timeout
        while True:
            left = deadline - time.monotonic()
            record = client.poll(max(0.0, left))
            if record is None:
                raise Unavailable("kafka", f"{self._where}: reading took longer than {self._timeout:g} s")
            yield cast("Record", record)
            yield from cast("list[Record]", client.consume(_BATCH, 0))

    def _do(self, what: Callable[[Consumer], T]) -> T:
        with self._lock:
            for again in range(_TRIES, -1, -1):
                try:
                    if self._made is None:
                        self._made = self._make()
                    return what(self._made)
                except KafkaException as error:
                    self._drop()  # one whose reading failed does not always read again
                    if not again or not position_is_gone(error):
                        raise translated(error, self._where) from error
                except Unavailable:
                    self._drop()  # it may have lost all brokers: see Silence
                    raise
            raise AssertionError("the last try returns or raises")

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        made, self._made = self._made, None
        self._looked_up.clear()
        if made is not None:
            made.close()
