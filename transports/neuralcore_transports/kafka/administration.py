"""Topics, groups and what is deleted of them. All of it blocks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent import futures
from typing import Any, Final, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewPartitions, NewTopic

from neuralcore.messaging.errors import Unavailable
from neuralcore_transports.kafka.errors import KafkaRefused, code_of, translated

__all__ = ["EARLIEST", "LATEST", "Administration", "Place", "at_time"]

T = TypeVar("T")

Place = tuple[str, int]
"""Topic and partition."""

EARLIEST: Final[Any] = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
LATEST: Final[Any] = OffsetSpec.latest()  # type: ignore[no-untyped-call]


def at_time(wall_ms: int) -> Any:
    return OffsetSpec.for_timestamp(wall_ms)


_SOON: Final = 0.02
_PASSING: Final = (
    KafkaError._NOENT,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
)
"""Of a partition that was made just now, or whose leader went just now."""
_KNOWN: Final = 10.0
"""Seconds that a new topic may take to be known to all."""


class Administration:
    def __init__(
        self, make: Callable[[], AdminClient], onlooker: Callable[[str], Consumer], *, timeout: float, where: str
    ) -> None:
        self._make = make
        self._onlooker = onlooker
        self._timeout = timeout
        self._where = where
        self._lock = threading.Lock()
        self._made: AdminClient | None = None
        self._since: float | None = None
        """When no broker answered it, if none has since."""

    @property
    def _client(self) -> AdminClient:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def partitions(self, topics: Iterable[str]) -> dict[str, int]:
        """Of those that are there. Raises Unavailable.

        Of all topics: one that is asked for by its name, brokers make, with settings that are not ours; by default, or
        where auto.create.topics.enable is true.
        """
        wanted = list(topics)
        if not wanted:
            return {}
        known = self._try(lambda: self._client.list_topics(timeout=self._timeout)).topics
        return {
            topic: len(known[topic].partitions)
            for topic in wanted
            if topic in known and known[topic].error is None and known[topic].partitions
        }

    def _led(self, topics: Iterable[str]) -> list[str]:
        """Those of which each partition has a leader."""
        known = self._try(lambda: self._client.list_topics(timeout=self._timeout)).topics
        return [
            topic
            for topic in topics
            if topic in known
            and known[topic].error is None
            and all(partition.leader >= 0 for partition in known[topic].partitions.values())
        ]

    def create(self, topics: Mapping[str, int], replication: int | None, settings: Mapping[str, str]) -> dict[str, int]:
        """Topics with so many partitions; those that are there stay as they are. How many they have: another broker,
        asked a moment later, may not know it yet. Raises KafkaRefused, Unavailable.
        """
        wanted = [
            NewTopic(topic, count, -1 if replication is None else replication, config=dict(settings))
            for topic, count in topics.items()
        ]
        deadline = time.monotonic() + self._timeout
        while not self._create(wanted, patient=time.monotonic() < deadline):
            time.sleep(_SOON)
        return self._wait_for(topics)

    def _create(self, wanted: list[NewTopic], *, patient: bool) -> bool:
        """False when no broker was counted as one that is there: it started just now, or was slow for a moment."""
        done = True
        for future in self._client.create_topics(wanted, request_timeout=self._timeout).values():
            try:
                self._result(future, KafkaError.TOPIC_ALREADY_EXISTS)
            except KafkaRefused as error:
                if not (patient and "fenced" in error.reason):
                    raise
                done = False
        return done

    def _wait_for(self, topics: Mapping[str, int]) -> dict[str, int]:
        deadline = time.monotonic() + _KNOWN
        while len(self._led(topics)) < len(topics) or len(found := self.partitions(topics)) < len(topics):
            if time.monotonic() > deadline:
                raise Unavailable("kafka", f"{self._where}: {', '.join(topics)} are made, and cannot be found")
            time.sleep(_SOON)
        self._opened(found)
        return found

    def _opened(self, topics: Mapping[str, int]) -> None:
        """Returns when each leader has its partitions open; its metadata say so a moment before.

        A producer's first records would be lost in that moment, and said to be stored: where their request is refused,
        and the next one, which is under way already, is not, the client library takes that for an answer to both.
        """
        self.offsets([(topic, number) for topic, count in topics.items() for number in range(count)], LATEST)

    def grow(self, topics: Collection[str], count: int) -> None:
        wanted = [NewPartitions(topic, count) for topic in topics]
        for future in self._client.create_partitions(wanted, request_timeout=self._timeout).values():
            self._result(future, KafkaError.INVALID_PARTITIONS)
        self._opened(dict.fromkeys(topics, count))

    def remove(self, topics: Sequence[str]) -> None:
        for future in self._client.delete_topics(list(topics), request_timeout=self._timeout).values():
            self._result(future, KafkaError.UNKNOWN_TOPIC_OR_PART)

    def forget(self, group: str) -> None:
        """What a group has committed, if no member is left."""
        ignored = (KafkaError.GROUP_ID_NOT_FOUND, KafkaError.NON_EMPTY_GROUP)
        for future in self._client.delete_consumer_groups([group], request_timeout=self._timeout).values():
            self._result(future, *ignored)

    def offsets(self, places: Sequence[Place], spec: Any) -> dict[Place, int]:
        """Negative where there is none. Tried until each partition has a leader. Raises Unavailable."""
        deadline = time.monotonic() + self._timeout
        found: dict[Place, int] = {}
        left = list(dict.fromkeys(places))
        while left:
            wanted = {TopicPartition(*place): spec for place in left}
            futures = self._client.list_offsets(wanted, request_timeout=self._timeout)
            for asked, future in futures.items():
                answer = self._result(future, *(_PASSING if time.monotonic() < deadline else ()))
                if answer is not None:
                    found[asked.topic, asked.partition] = answer.offset
            left = [place for place in left if place not in found]
            if left:
                time.sleep(_SOON)
                self.partitions({topic for topic, _ in left})  # it remembers for long that there was no leader
        return found

    def commits(self, group: str, places: Sequence[Place]) -> dict[Place, TopicPartition]:
        """What a group has committed. Raises Unavailable.

        Not by list_consumer_group_offsets: where the group's coordinator has just moved to another broker, its answer
        is a segmentation fault (librdkafka 2.16, #5315).
        """
        client = self._onlooker(group)
        try:
            answer = client.committed([TopicPartition(*place) for place in places], self._timeout)
        except KafkaException as error:
            raise translated(error, self._where) from error
        finally:
            client.close()
        return {(each.topic, each.partition): each for each in answer if each.error is None and each.offset >= 0}

    def delete_before(self, offsets: Mapping[Place, int]) -> None:
        """Delete the messages before these offsets."""
        wanted = [TopicPartition(*place, offset) for place, offset in offsets.items()]
        for future in self._client.delete_records(wanted, request_timeout=self._timeout).values():
            self._result(future, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.OFFSET_OUT_OF_RANGE)

    def check(self) -> int:
        """How many brokers are there. Raises Unavailable."""
        return len(self._try(lambda: self._client.list_topics(timeout=self._timeout)).brokers)

    def _result(self, future: Any, *ignored: int) -> Any:
        """None for an error that says that it is so already."""
        try:
            answer = future.result(self._timeout + 1)
        except KafkaException as error:
            if code_of(error) in ignored:
                return None
            raise self._failed(translated(error, self._where)) from error
        except futures.TimeoutError as error:
            silent = Unavailable("kafka", f"{self._where}: no answer within {self._timeout:g} s")
            raise self._failed(silent) from error
        self._since = None
        return answer

    def _try(self, what: Callable[[], T]) -> T:
        try:
            answer = what()
        except KafkaException as error:
            raise self._failed(translated(error, self._where)) from error
        self._since = None
        return answer

    def _failed(self, error: Exception) -> Exception:
        """Where no broker answers for long, the next call's client is another: this one may have lost them, as Silence
        says.
        """
        if isinstance(error, Unavailable):
            now, since = time.monotonic(), self._since
            if since is None:
                self._since = now
            elif now - since >= self._timeout:
                self._since = self._made = None
        return error
