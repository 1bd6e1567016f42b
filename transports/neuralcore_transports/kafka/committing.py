"""Tells the broker what a group has settled: one commit at a time, as often as there is something to tell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from confluent_kafka import KafkaError, TopicPartition

from neuralcore.messaging.errors import LeaseLost
from neuralcore.messaging.transport import Settlement
from neuralcore_transports.kafka.complaints import Complaints
from neuralcore_transports.kafka.partition import Entry, Partition
from neuralcore_transports.kafka.together import Job, Jobs
from neuralcore_transports.kafka.window import Commit, Window

__all__ = ["Committing"]

_AGAIN: Final = 0.1
_LATE: Final = 30.0
"""Seconds after which a commit of which nothing was heard is taken for failed. It may still come, and undo what came
before it: no transaction begins until it is answered.
"""

_Send = Callable[[list[TopicPartition]], None]
_Transact = Callable[[list[Job], list[TopicPartition]], Coroutine[Any, Any, None]]
_Sent = dict[tuple[str, int], tuple[Partition, Window, Commit]]


class Committing:
    """On the loop.

    A transaction has the partitions of its messages alone: brokers add its offsets when it ends, and to a partition
    that it only took along, and that went meanwhile, the last commit would be undone. Of the others there is a commit
    at the same time, and the next one begins when both have ended.
    """

    def __init__(
        self,
        name: str,
        send: _Send,
        transact: _Transact,
        *,
        more: Callable[[Partition], None],
        settled: Callable[[Sequence[Settlement]], object],
        count: Callable[[str], None],
    ) -> None:
        """``send`` begins a commit, of which ``told`` will hear; ``transact`` makes one that is part of a transaction.
        After it a partition may hand out ``more``, and what was ``settled`` by the transaction is. ``count``: those
        that fail.
        """
        self._send = send
        self._transact = transact
        self._more = more
        self._settled = settled
        self._jobs = Jobs()
        self._transaction: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._complaints = Complaints(name, count, self._loop.time)
        self._wanted: dict[Partition, None] = {}
        self._sent: _Sent = {}
        """In the commit under way, not in the transaction."""
        self._unanswered = 0
        """Commits, also those that were given up."""
        self._failed = False
        self._waiting: list[asyncio.Future[None]] = []
        """For the next commit."""
        self._answered: list[asyncio.Future[None]] = []
        """When what is under way has ended."""
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._late: asyncio.TimerHandle | None = None
        self._closed = False

    def want(self, partition: Partition) -> None:
        self._wanted[partition] = None
        self._soon()

    def together(self, job: Job) -> None:
        """Settle it, in a transaction with its records."""
        self._jobs.add(job)
        self._soon()

    def _soon(self) -> None:
        if not self._closed and not self._under_way and self._timer is None:
            self._timer = self._loop.call_soon(self._begin)

    @property
    def _under_way(self) -> bool:
        return bool(self._sent) or self._transaction is not None

    def confirmed(self) -> asyncio.Future[None]:
        """Done when the broker has what is wanted now."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self._closed or not (self._wanted or self._under_way):
            future.set_result(None)
        elif self._wanted:
            self._waiting.append(future)
        else:
            self._answered.append(future)
        return future

    def forget(self, partition: Partition) -> None:
        """It is not this process's any more."""
        self._wanted.pop(partition, None)
        self._complaints.gone(partition.key)

    def _begin(self) -> None:
        self._timer = None
        if self._under_way:
            return
        jobs = []
        if self._unanswered:
            self._jobs.end_late()
        else:
            jobs = [job for job in self._jobs.take() if _is_held(job)]
        also: dict[Partition, list[int]] = {}
        for job in jobs:
            entry = _entry_of(job)
            also.setdefault(entry.partition, []).append(entry.offset)
        self._answered, self._waiting = self._waiting, []
        self._sent = _commits([each for each in self._wanted if each.owned and each not in also])
        self._wanted.clear()
        if jobs:
            for partition in also:
                partition.in_transaction = True
            self._transaction = self._loop.create_task(self._transacted(jobs, _commits(also, also)))
        if self._sent:
            self._unanswered += 1
            self._late = self._loop.call_later(_LATE, self._heard, KafkaError(KafkaError._TIMED_OUT), ())
            self._send(_offsets(self._sent))
        elif not jobs:
            self._done()

    async def _transacted(self, jobs: list[Job], sent: _Sent) -> None:
        error: Exception | None = None
        try:
            await self._transact(jobs, _offsets(sent))
        except Exception as raised:  # noqa: BLE001 - whatever it is, who waits is told
            error = raised
        for partition, _, _ in sent.values():
            partition.in_transaction = False
        failed = None
        if error is None:
            self._settled([job.settlement for job in jobs if job.settlement is not None])
            for job in jobs:
                job.end()
        else:
            self._jobs.failed(jobs, error)
            failed = KafkaError(KafkaError._FAIL, f"its transaction failed: {error}")
        self._transaction = None
        self._end(sent, failed)

    def told(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """What became of the commit under way, or of one that was given up."""
        self._unanswered = max(0, self._unanswered - 1)
        self._heard(error, partitions)

    def _heard(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        if any(not self._is_sent(each) for each in partitions):
            return  # one that was given up
        if not self._sent:
            return
        if self._late is not None:
            self._late.cancel()
            self._late = None
        sent, self._sent = self._sent, {}
        self._end(sent, error, {(each.topic, each.partition): each.error for each in partitions})

    def _end(
        self,
        sent: _Sent,
        error: KafkaError | None,
        errors: Mapping[tuple[str, int], KafkaError | None] = MappingProxyType({}),
    ) -> None:
        failed = {}
        for key, (partition, window, commit) in sent.items():
            wrong = error if error is not None else errors.get(key)
            if not partition.is_at(window):
                continue
            if wrong is None:
                partition.window.committed(commit)
                self._complaints.worked(key)
                self._more(partition)
            else:
                failed[key] = wrong
                partition.window.not_committed()
                self._wanted[partition] = None
        if failed:
            self._complaints.failed(failed)
            self._failed = True
        if self._under_way:
            return
        if self._closed or not self._failed:
            self._done()
            return
        self._failed = False
        self._waiting = self._answered + self._waiting
        self._answered = []
        self._timer = self._loop.call_later(_AGAIN, self._begin)

    def _is_sent(self, told: TopicPartition) -> bool:
        sent = self._sent.get((told.topic, told.partition))
        return sent is not None and (sent[2].offset, sent[2].metadata) == (told.offset, told.metadata)

    def _done(self) -> None:
        for future in self._answered:
            if not future.done():
                future.set_result(None)
        self._answered = []
        if self._closed:
            return
        if self._wanted or self._waiting or (self._jobs and not self._unanswered):
            self._timer = self._loop.call_soon(self._begin)
        elif self._jobs:
            self._timer = self._loop.call_later(_AGAIN, self._begin)

    def close(self) -> None:
        """Nothing is sent any more. A transaction that has begun goes on; what fails in it is not tried again."""
        self._closed = True
        for timer in (self._timer, self._late):
            if timer is not None:
                timer.cancel()
        self._sent.clear()
        self._wanted.clear()
        self._jobs.close(LeaseLost())
        for future in self._answered + self._waiting:
            if not future.done():
                future.set_result(None)

    async def ended(self) -> None:
        """What has begun is over."""
        if self._transaction is not None:
            await asyncio.wait({self._transaction})


def _commits(
    partitions: Iterable[Partition], also: Mapping[Partition, Collection[int]] = MappingProxyType({})
) -> _Sent:
    return {each.key: (each, each.window, each.commit(also.get(each, ()))) for each in partitions}


def _offsets(sent: _Sent) -> list[TopicPartition]:
    return [TopicPartition(*key, commit.offset, commit.metadata) for key, (_, _, commit) in sent.items()]


def _is_held(job: Job) -> bool:
    """Tells whoever waits for it if not."""
    assert job.settlement is not None
    delivery = job.settlement.delivery
    if _entry_of(job).partition.holds(delivery):
        return True
    job.end(LeaseLost(delivery.envelope.channel, delivery.envelope.id))
    return False


def _entry_of(job: Job) -> Entry:
    assert job.settlement is not None
    entry = job.settlement.delivery.lease
    assert isinstance(entry, Entry)
    return entry
