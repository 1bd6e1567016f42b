"""What the thread does with commits while partitions go, which it has to wait for inside a callback of the library."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from neuralcore_transports.kafka.registry import Channel, Position
from neuralcore_transports.kafka.session import Session
from neuralcore_transports.kafka.silence import Silence
from neuralcore_transports.kafka.window import Commit
from tests.transports.kafka.fakes import Asked, a_clock

TOPIC = "nc.orders"
STAYS, GOES = 0, 1
NOBODY = KafkaException(KafkaError(KafkaError._TRANSPORT))
CHANGING = KafkaException(KafkaError(KafkaError.REBALANCE_IN_PROGRESS))


class Library:
    """A consumer that does what it is told to in its polls, and tells of a commit only when the test has it so."""

    def __init__(self) -> None:
        self.doing: deque[Callable[[], object]] = deque()
        self.commits: list[tuple[bool, list[tuple[int, int]]]] = []
        self.failing: Exception | None = None
        self.alone = False
        """No broker answers, and its callbacks are not called."""
        self.on_commit: Callable[..., None]
        self.callbacks: dict[str, Callable[..., None]] = {}
        self.left: list[int] = []

    def subscribe(self, topics: list[str], **callbacks: Any) -> None:
        self.callbacks = callbacks

    def poll(self, seconds: float) -> None:
        time.sleep(0.001)
        if self.doing and self.callbacks and not self.alone:
            self.doing.popleft()()

    def consume(self, most: int, seconds: float) -> Sequence[Any]:
        return ()

    def committed(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        self.list_topics()
        return places

    def list_topics(self, *_: Any) -> None:
        if self.alone:
            raise NOBODY

    def commit(self, offsets: list[TopicPartition], *, asynchronous: bool) -> list[TopicPartition] | None:
        if self.failing is not None:
            raise self.failing
        self.commits.append((asynchronous, [(each.partition, each.offset) for each in offsets]))
        return None if asynchronous else offsets

    def consumer_group_metadata(self) -> None: ...

    def incremental_assign(self, places: list[TopicPartition]) -> None: ...

    def incremental_unassign(self, places: list[TopicPartition]) -> None:
        self.left = [each.partition for each in places]

    def resume(self, places: list[TopicPartition]) -> None: ...

    def close(self) -> None: ...


class Bench:
    """A session that has two partitions; one of them is to go when the test says so."""

    def __init__(self) -> None:
        self.libraries: list[Library] = []
        self.answers: list[tuple[KafkaError | None, list[tuple[int, int]]]] = []
        self.assigned_to = threading.Event()
        self.going = threading.Event()
        self.gone_from = threading.Event()
        self.done: Callable[[], None]
        self.last: dict[Any, Commit] = {}
        position = Position(0, None)
        transport = SimpleNamespace(
            call=lambda what, *arguments: what(*arguments),
            clock=a_clock(),
            silence=lambda name: Silence(name, Asked, 0.05, quiet=0.05),
            count=lambda name: None,
            topics=SimpleNamespace(group=lambda name: f"nc.{name}"),
            clients=SimpleNamespace(member=self._member),
            options=SimpleNamespace(prefetch=10, handover=5, timeout=5, dedup_ns=lambda window: 0, dedup_count=1),
            registrar=SimpleNamespace(
                channel_of=lambda topic: (Channel("orders", 2), 0),
                registry=SimpleNamespace(position=lambda group, channel: position),
            ),
        )
        self.session = Session(transport, "g", self)  # type: ignore[arg-type]
        self.session.subscribe([TOPIC])
        self.do("on_assign", STAYS, GOES)
        assert self.assigned_to.wait(5)

    def _member(self, group: str, *, on_commit: Callable[..., None]) -> Library:
        self.libraries.append(Library())
        self.library.on_commit = on_commit
        return self.library

    @property
    def library(self) -> Library:
        """The last one that was made."""
        return self.libraries[-1]

    def do(self, callback: str, *numbers: int) -> None:
        places = [TopicPartition(TOPIC, number) for number in numbers]
        library = self.library
        library.doing.append(lambda: library.callbacks[callback](library, places))

    def commit(self, *offsets: tuple[int, int]) -> list[TopicPartition]:
        made = [TopicPartition(TOPIC, *each, "nc1:") for each in offsets]
        self.session.commit(made)
        return made

    def until(self, true: Callable[[], object]) -> None:
        deadline = time.monotonic() + 10
        while not true():
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def has_answers(self, count: int) -> bool:
        return len(self.answers) == count

    # The member

    def in_trouble(self, error: KafkaError) -> None: ...

    def arrived(self, *_: Any) -> None: ...

    ended = taken = arrived

    def assigned(self, found: Any) -> None:
        self.assigned_to.set()

    def told(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        self.answers.append((error, [(each.partition, each.offset) for each in partitions]))

    def revoking(self, keys: Any, commits: dict[Any, Commit], done: Callable[[], None]) -> None:
        self.last, self.done = commits, done
        self.going.set()

    def gone(self, keys: Any) -> None:
        self.gone_from.set()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    assert made.session.stop(10)


def going(bench: Bench) -> None:
    bench.do("on_revoke", GOES)
    assert bench.going.wait(5)


def test_commits_go_on_while_it_waits_for_those_whose_partitions_go(bench: Bench) -> None:
    going(bench)
    for offset in (1, 2):
        bench.commit((STAYS, offset), (GOES, offset))
        bench.until(partial(bench.has_answers, offset))
    assert not bench.gone_from.is_set()
    assert bench.answers == [(None, [(STAYS, offset), (GOES, offset)]) for offset in (1, 2)]
    bench.last[TOPIC, GOES] = Commit(3, "nc1:", 3)
    bench.done()
    assert bench.gone_from.wait(5)
    assert [offsets for _, offsets in bench.library.commits][-1] == [(GOES, 3)]
    bench.until(lambda: bench.library.left == [GOES])


def test_of_one_under_way_it_is_heard_at_once_and_only_once(bench: Bench) -> None:
    """The library tells of it when the callback has returned, and the next one waits for that."""
    sent = bench.commit((STAYS, 1), (GOES, 1))
    bench.until(lambda: bench.library.commits)
    going(bench)
    bench.until(lambda: bench.answers)
    assert bench.library.commits == [(True, [(STAYS, 1), (GOES, 1)]), (False, [(STAYS, 1), (GOES, 1)])]
    bench.done()
    assert bench.gone_from.wait(5)
    bench.library.doing.append(lambda: bench.library.on_commit(None, sent))
    bench.until(lambda: not bench.library.doing)
    again = bench.commit((STAYS, 2))
    bench.until(lambda: len(bench.library.commits) == 3)
    bench.library.doing.append(lambda: bench.library.on_commit(None, again))
    bench.until(lambda: len(bench.answers) == 2)
    assert bench.answers == [(None, [(STAYS, 1), (GOES, 1)]), (None, [(STAYS, 2)])]


def test_one_that_was_heard_of_is_not_committed_again(bench: Bench) -> None:
    """A transaction may have gone beyond it since."""
    sent = bench.commit((STAYS, 1))
    bench.until(lambda: bench.library.commits)
    bench.library.doing.append(lambda: bench.library.on_commit(None, sent))
    bench.until(lambda: bench.answers)
    going(bench)
    bench.done()
    assert bench.gone_from.wait(5)
    assert len(bench.library.commits) == 1


def test_one_that_fails_meanwhile_is_told_of(bench: Bench) -> None:
    going(bench)
    bench.library.failing = CHANGING
    bench.commit((STAYS, 1))
    bench.until(lambda: bench.answers)
    bench.done()
    ((error, partitions),) = bench.answers
    assert error is CHANGING.args[0]
    assert partitions == []


def test_what_is_gone_is_not_committed_after_its_last_word(bench: Bench) -> None:
    going(bench)
    bench.done()
    assert bench.gone_from.wait(5)
    bench.commit((STAYS, 7), (GOES, 7))
    bench.commit((GOES, 8))
    bench.until(lambda: bench.answers)
    assert bench.library.commits == [(True, [(STAYS, 7)])]
    assert bench.answers == [(None, [])], "who asked is told nothing of it"


def test_it_waits_no_longer_than_it_must_however_many_commits_are_wanted(bench: Bench) -> None:
    """Where no broker answers each takes long, and is wanted again."""
    commit, turns = bench.library.commit, 0

    def slow(offsets: list[TopicPartition], *, asynchronous: bool) -> list[TopicPartition] | None:
        nonlocal turns
        turns += 1
        if turns == 3:
            bench.done()
        if turns < 50:
            bench.commit((STAYS, turns))
        return commit(offsets, asynchronous=asynchronous)

    going(bench)
    bench.library.commit = slow  # type: ignore[method-assign]
    bench.commit((STAYS, 1))
    assert bench.gone_from.wait(5)
    assert [asynchronous for asynchronous, _ in bench.library.commits].count(False) == 3
    bench.until(lambda: turns == 50)


def test_an_older_one_that_was_given_up_does_not_answer_for_the_next(bench: Bench) -> None:
    given_up = bench.commit((STAYS, 1))
    bench.until(lambda: len(bench.library.commits) == 1)
    bench.commit((STAYS, 2))
    bench.until(lambda: len(bench.library.commits) == 2)
    bench.library.doing.append(lambda: bench.library.on_commit(None, given_up))
    bench.until(lambda: bench.answers)
    going(bench)
    bench.until(lambda: len(bench.library.commits) == 3)
    assert bench.library.commits[-1] == (False, [(STAYS, 2)])
    bench.done()


def test_one_under_way_is_not_repeated_when_what_was_lost_comes_back(bench: Bench) -> None:
    """It is of another generation, and others may have gone beyond it."""
    bench.commit((GOES, 1))
    bench.until(lambda: bench.library.commits)
    bench.do("on_lost", GOES)
    assert bench.gone_from.wait(5)
    bench.assigned_to.clear()
    bench.do("on_assign", GOES)
    assert bench.assigned_to.wait(5)
    going(bench)
    bench.done()
    bench.until(lambda: bench.library.left == [GOES])
    assert bench.library.commits == [(True, [(GOES, 1)])]


def test_another_client_begins_anew_when_one_has_lost_all_brokers(bench: Bench) -> None:
    """Of a commit that the last one had, nobody else would tell."""
    bench.commit((STAYS, 1))
    bench.until(lambda: bench.library.commits)
    bench.library.alone = True
    bench.until(lambda: len(bench.libraries) == 2 and bench.library.callbacks)
    assert bench.gone_from.is_set()
    ((error, places),) = bench.answers
    assert error is not None
    assert not places
    bench.assigned_to.clear()
    bench.do("on_assign", STAYS)
    assert bench.assigned_to.wait(5)
    bench.commit((STAYS, 2), (GOES, 2))
    bench.until(lambda: bench.library.commits)
    assert bench.library.commits == [(True, [(STAYS, 2)])]


def test_of_a_commit_that_was_answered_within_a_callback_it_is_not_told_again(bench: Bench) -> None:
    bench.commit((STAYS, 1))
    bench.until(lambda: bench.library.commits)
    going(bench)
    bench.until(partial(bench.has_answers, 1))
    bench.done()
    bench.until(lambda: bench.library.left == [GOES])
    bench.library.alone = True
    bench.until(lambda: len(bench.libraries) == 2 and bench.library.callbacks)
    assert len(bench.answers) == 1


def test_it_does_not_wait_for_positions_that_a_lost_client_cannot_learn(bench: Bench) -> None:
    first = bench.library

    def lose() -> None:
        first.alone = True
        first.callbacks["on_assign"](first, [TopicPartition(TOPIC, 2)])

    first.doing.append(lose)
    bench.until(lambda: len(bench.libraries) == 2 and bench.library.callbacks)
