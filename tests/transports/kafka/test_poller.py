"""What the thread asks of the client library, and tells the loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from neuralcore_transports.kafka import poller as module
from neuralcore_transports.kafka.poller import Flow, Poller
from neuralcore_transports.kafka.silence import Silence
from tests.transports.kafka.fakes import Asked, FakeRecord

END = KafkaError(KafkaError._PARTITION_EOF)


@dataclass(frozen=True)
class Read(FakeRecord):
    wrong: KafkaError | None = None

    def __len__(self) -> int:
        return len(self.data or b"")

    def error(self) -> KafkaError | None:
        return self.wrong


@dataclass
class Library:
    """A consumer that has what ``give`` gave it."""

    told: list[tuple[str, int]] = field(default_factory=list)
    waiting: list[Any] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    closed: bool = False
    assigned: list[tuple[int, int]] = field(default_factory=list)
    alone: bool = False

    def list_topics(self, topic: str, timeout: float) -> None:
        if self.alone:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    def incremental_assign(self, places: Sequence[TopicPartition]) -> None:
        self.assigned += [(each.partition, each.offset) for each in places]

    def give(self, *records: Any) -> None:
        with self.lock:
            self.waiting += records

    def poll(self, seconds: float) -> Any:
        time.sleep(0.001)
        with self.lock:
            found = self.waiting.pop(0) if self.waiting else None
        if isinstance(found, Exception):
            raise found
        return found

    def consume(self, most: int, seconds: float) -> Sequence[Any]:
        with self.lock:
            found, self.waiting = self.waiting[:most], self.waiting[most:]
        return found

    def pause(self, places: Sequence[TopicPartition]) -> None:
        self.told.append(("pause", places[0].partition))

    def resume(self, places: Sequence[TopicPartition]) -> None:
        self.told.append(("resume", places[0].partition))

    def seek(self, place: TopicPartition) -> None:
        self.told.append(("seek", place.offset))

    def close(self) -> None:
        self.closed = True


class Bench:
    def __init__(self) -> None:
        self.libraries: list[Library] = []
        self.arrived: list[int] = []
        self.ended: list[int] = []
        self.wakes = 0
        self.poller = Poller(
            self.make,  # type: ignore[arg-type]
            self.call,
            prefetch=10,
            name="t",
            silence=Silence("t", Asked, 0.05, quiet=0.05),
            replaced=self._replaced,
        )
        self.flow = Flow(
            "nc.orders",
            3,
            lambda records: self.arrived.extend(record.offset() for record in records),
            lambda error: None,
            self.ended.append,
        )
        self.poller.add(self.flow)
        self.poller.start()

    def make(self) -> Library:
        self.libraries.append(Library())
        return self.library

    @property
    def library(self) -> Library:
        """The last one that was made."""
        return self.libraries[-1]

    def _replaced(self) -> None:
        self.poller.read_on()

    def call(self, what: Any, *arguments: Any) -> None:
        self.wakes += 1
        what(*arguments)

    def give(self, *records: Any) -> None:
        self.library.give(*records)

    def until(self, true: Any) -> None:
        deadline = time.monotonic() + 10
        while not true():
            assert time.monotonic() < deadline
            time.sleep(0.001)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    assert made.poller.stop(5)
    assert made.library.closed


def records(*offsets: int, size: int = 1) -> list[Read]:
    return [Read(at, b"x" * size) for at in offsets]


def test_what_one_poll_brings_wakes_the_loop_once(bench: Bench) -> None:
    bench.give(*records(*range(5)))
    bench.until(lambda: bench.arrived == [0, 1, 2, 3, 4])
    assert bench.wakes == 1


def test_a_partition_of_which_enough_waits_is_paused_and_read_on_where_it_was(bench: Bench) -> None:
    """By a seek: without it the library may look at it only a second later."""
    bench.give(*records(*range(12)))
    bench.until(lambda: len(bench.arrived) == 12)
    bench.poller.taken(bench.flow, 6)
    assert bench.library.told == [("pause", 3)]
    bench.poller.taken(bench.flow, 1)
    bench.until(lambda: len(bench.library.told) == 3)
    assert bench.library.told == [("pause", 3), ("resume", 3), ("seek", 12)]


def test_one_that_is_paused_goes_on_where_it_was_sought_meanwhile(bench: Bench) -> None:
    bench.give(*records(*range(12)))
    bench.until(lambda: len(bench.arrived) == 12)
    bench.poller.ask(lambda: bench.poller.seek(bench.flow, 4), 5)
    bench.poller.taken(bench.flow, 12)
    bench.until(lambda: len(bench.library.told) == 4)
    assert bench.library.told == [("pause", 3), ("seek", 4), ("resume", 3), ("seek", 4)]


def test_of_big_messages_fewer_may_wait(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BYTES", 300)
    bench.give(*records(0, 1, 2, size=100))
    bench.until(lambda: bench.library.told == [("pause", 3)])


def test_the_end_is_news_where_something_before_it_did_not_arrive(bench: Bench) -> None:
    bench.give(*records(0, 1), Read(2, wrong=END))
    bench.give(*records(2), Read(4, wrong=END))
    bench.until(lambda: bench.ended == [4])
    assert bench.arrived == [0, 1, 2]


def test_a_flow_that_is_gone_hears_nothing_and_is_not_left_paused(bench: Bench) -> None:
    bench.give(*records(*range(12)))
    bench.until(lambda: bench.library.told)
    bench.poller.order(lambda: bench.poller.remove("nc.orders", 3))
    bench.until(lambda: bench.flow.closed)
    assert bench.library.told == [("pause", 3), ("resume", 3)]
    bench.give(*records(12))
    bench.until(lambda: not bench.library.waiting)
    bench.poller.taken(bench.flow, 12)
    assert bench.poller.ask(lambda: 1, 5) == 1
    assert 12 not in bench.arrived
    assert bench.library.told == [("pause", 3), ("resume", 3)]


def test_the_thread_outlives_what_goes_wrong(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.give(RuntimeError("on purpose"))
    bench.until(lambda: not bench.library.waiting)
    bench.give(*records(0))
    bench.until(lambda: bench.arrived == [0])
    assert "on purpose" in caplog.text


def test_what_the_library_drops_when_a_callback_of_its_raises_is_read_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read 0 to 2 then: the first was polled, and the others are gone with the error."""
    consume = bench.library.consume

    def raises(most: int, seconds: float) -> Sequence[Any]:
        if bench.library.waiting:
            bench.library.waiting.clear()
            raise RuntimeError("on purpose")
        return consume(most, seconds)

    monkeypatch.setattr(bench.library, "consume", raises)
    bench.give(*records(0, 1, 2))
    bench.until(lambda: bench.library.told == [("seek", 1)])
    assert bench.arrived == [0]


def test_a_flow_of_which_nothing_was_read_is_read_again_from_its_start(bench: Bench) -> None:
    bench.poller.order(lambda: bench.poller.add(Flow("nc.orders", 4, lambda records: None, lambda error: None), 7))
    assert bench.poller.ask(lambda: bench.poller._flows["nc.orders", 4]._next, 5) == 7


def test_a_client_that_takes_anothers_place_reads_on_where_that_one_was(bench: Bench) -> None:
    bench.give(*records(*range(3)))
    bench.until(lambda: len(bench.arrived) == 3)
    bench.library.alone = True
    bench.until(lambda: len(bench.libraries) == 2 and bench.library.assigned)
    assert bench.library.assigned == [(3, 3)]
    assert bench.library.told == []
    bench.give(*records(3, 4))
    bench.until(lambda: bench.arrived == [0, 1, 2, 3, 4])


def test_what_was_paused_is_paused_for_the_next_client_too(bench: Bench) -> None:
    bench.give(*records(*range(12)))
    bench.until(lambda: len(bench.arrived) == 12)
    bench.library.alone = True
    bench.until(lambda: len(bench.libraries) == 2 and bench.library.told)
    assert bench.library.assigned == [(3, 12)]
    assert bench.library.told == [("pause", 3)]
    bench.poller.taken(bench.flow, 12)
    bench.until(lambda: bench.library.told == [("pause", 3), ("resume", 3), ("seek", 12)])


def test_a_client_whose_place_was_taken_may_take_its_time_to_end(bench: Bench) -> None:
    ended, may_end = threading.Event(), threading.Event()

    class Slow(Library):
        def __del__(self) -> None:
            may_end.wait(10)
            ended.set()

    bench.give(*records(0))
    bench.until(lambda: bench.arrived == [0])
    bench.poller.client = Slow(alone=True)  # type: ignore[assignment]
    bench.until(lambda: len(bench.libraries) == 2 and bench.library.assigned)
    bench.give(*records(1))
    bench.until(lambda: bench.arrived == [0, 1])
    assert not ended.is_set()
    may_end.set()
    assert ended.wait(5)


def test_what_fails_as_a_client_begins_is_tried_with_another(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LATER", 0.01)
    read_on, failures = bench.poller.read_on, [RuntimeError("on purpose"), RuntimeError("on purpose")]

    def failing() -> None:
        if failures:
            raise failures.pop()
        read_on()

    monkeypatch.setattr(bench.poller, "read_on", failing)
    bench.give(*records(0))
    bench.until(lambda: bench.arrived == [0])
    bench.library.alone = True
    bench.until(lambda: len(bench.libraries) == 4 and bench.library.assigned)
    bench.give(*records(1))
    bench.until(lambda: bench.arrived == [0, 1])
