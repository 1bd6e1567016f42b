"""What is read for nobody's group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from confluent_kafka import TopicPartition

from neuralcore_transports.kafka.poller import Flow
from neuralcore_transports.kafka.reader import Reader
from tests.transports.kafka.fakes import FakeRecord, a_silence


class Library:
    """A consumer one of whose callbacks raises once, while it has something in its hands; that is dropped then."""

    def __init__(self) -> None:
        self.at: dict[tuple[str, int], int] = {}
        self.sought: list[tuple[str, int, int]] = []
        self.first: FakeRecord | None = None

    def list_topics(self, topic: str, timeout: float) -> Any:
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions=range(8))})

    def incremental_assign(self, places: Sequence[TopicPartition]) -> None:
        self.at.update(((each.topic, each.partition), each.offset) for each in places)

    def poll(self, seconds: float) -> FakeRecord | None:
        first, self.first = self.first, None
        return first

    def consume(self, most: int, seconds: float) -> Sequence[Any]:
        raise RuntimeError("on purpose")

    def seek(self, place: TopicPartition) -> None:
        self.sought.append((place.topic, place.partition, place.offset))

    def close(self) -> None: ...


def call(what: Callable[..., object], *arguments: object) -> None:
    what(*arguments)


def test_what_was_dropped_before_anything_of_a_partition_was_read_is_read_again() -> None:
    library = Library()
    reader = Reader(
        lambda: library,  # type: ignore[arg-type,return-value]
        call,
        silence=a_silence(),
        prefetch=10,
        timeout=5,
        where="here",
        name="t",
    )
    reader.start()
    arrived: list[Any] = []
    for number, start in ((3, 0), (4, 7)):
        reader.add(Flow("nc.orders", number, arrived.extend, lambda error: None), start)
    library.first = FakeRecord(2)  # of partition 3
    while len(library.sought) < 2:
        reader.poller.ask(lambda: None, 5)
    reader.stop()
    assert library.sought == [("nc.orders", 3, 3), ("nc.orders", 4, 7)]
