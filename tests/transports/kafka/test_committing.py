"""One commit at a time, until the broker has everything."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import KafkaError, TopicPartition

from neuralcore.messaging.errors import LeaseLost, NotStored, PublishError
from neuralcore.messaging.transport import Delivery, Outcome, Settlement
from neuralcore_transports.kafka import committing as module
from neuralcore_transports.kafka.committing import Committing
from neuralcore_transports.kafka.partition import Partition
from neuralcore_transports.kafka.together import Job
from neuralcore_transports.kafka.transactor import InDoubt
from neuralcore_transports.kafka.window import Window
from tests.transports.kafka.fakes import Hands

BUSY = KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS)


@dataclass
class Answer:
    """The client library's can only be made by itself, with its error."""

    topic: str
    partition: int
    offset: int
    metadata: str
    error: KafkaError | None = None


class Broker:
    """Keeps what is sent; answers when it is told to."""

    def __init__(self) -> None:
        self.sent: list[list[TopicPartition]] = []
        self.more: list[Partition] = []
        self.settled: list[Settlement] = []
        self.transactions: list[tuple[list[Job], list[TopicPartition]]] = []
        self.ended: asyncio.Future[None]
        self.counted: Counter[str] = Counter()
        self.committing = Committing(
            "g",
            self.sent.append,
            self.transact,
            more=self.more.append,
            settled=self.settled.extend,
            count=lambda name: self.counted.update([name]),
        )

    async def transact(self, jobs: list[Job], offsets: list[TopicPartition]) -> None:
        self.transactions.append((jobs, offsets))
        self.ended = asyncio.get_running_loop().create_future()
        await self.ended

    async def answer(self, error: KafkaError | None = None, partitions: Any = ()) -> None:
        self.committing.told(error, partitions)
        await turns()

    def told(self, errors: Mapping[tuple[str, int], KafkaError]) -> list[Answer]:
        """What the library says of the last one."""
        return [
            Answer(each.topic, each.partition, each.offset, each.metadata, errors.get((each.topic, each.partition)))
            for each in self.sent[-1]
        ]

    def offsets(self, n: int = -1) -> dict[tuple[str, int], int]:
        return {(each.topic, each.partition): each.offset for each in self.sent[n]}


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AGAIN", 0.01)


@pytest.fixture
async def broker() -> Any:
    made = Broker()
    yield made
    made.committing.close()


numbers: Iterator[int] = iter(range(10**6))


def settled(count: int) -> Hands:
    hands = Hands(number=next(numbers))
    hands.publish(*(str(n) for n in range(count)))
    hands.ack(*hands.take(count))
    return hands


async def test_what_is_wanted_is_sent_together(broker):
    one, two = settled(1), settled(2)
    broker.committing.want(one.partition)
    broker.committing.want(two.partition)
    broker.committing.want(one.partition)
    assert not broker.sent
    await turns()
    assert len(broker.sent) == 1
    assert broker.offsets() == {one.partition.key: 1, two.partition.key: 2}


async def test_what_is_sent_can_be_restored(broker):
    hands = Hands(number=next(numbers))
    hands.publish("a", "b", "c")
    _, b, _ = hands.take()
    hands.ack(b)
    broker.committing.want(hands.partition)
    await turns()
    ((sent,),) = broker.sent
    again = Window.restored(sent.offset, sent.metadata)
    assert [again.is_settled(offset) for offset in range(3)] == [False, True, False]


async def test_one_commit_at_a_time(broker):
    one, two = settled(1), settled(2)
    broker.committing.want(one.partition)
    await turns()
    broker.committing.want(two.partition)
    broker.committing.want(one.partition)
    await turns()
    assert len(broker.sent) == 1
    await broker.answer()
    assert len(broker.sent) == 2
    assert broker.offsets() == {one.partition.key: 1, two.partition.key: 2}
    await broker.answer()
    assert len(broker.sent) == 2, "and nothing without need"


async def test_after_a_commit_more_may_be_handed_out_not_before(broker):
    hands = Hands(number=next(numbers))
    hands.publish("a", "b")
    hands.reserve(0)
    broker.committing.want(hands.partition)
    await turns()
    assert hands.take() == []
    assert not broker.more
    await broker.answer()
    assert broker.more == [hands.partition]
    assert len(hands.take()) == 2


async def test_a_failed_commit_is_tried_again_with_what_is_new(broker):
    hands = Hands(number=next(numbers))
    hands.publish("a", "b")
    a, b = hands.take()
    hands.ack(a)
    broker.committing.want(hands.partition)
    await turns()
    hands.ack(b)
    await broker.answer(BUSY)
    assert hands.window.changed
    assert not broker.more
    await asyncio.sleep(0.05)
    assert [broker.offsets(n)[hands.partition.key] for n in range(len(broker.sent))] == [1, 2]


async def test_of_one_that_failed_in_part_only_that_part_is_tried_again(broker):
    one, two = settled(1), settled(2)
    for hands in (one, two):
        broker.committing.want(hands.partition)
    await turns()
    await broker.answer(None, broker.told({two.partition.key: BUSY}))
    assert broker.more == [one.partition]
    await asyncio.sleep(0.05)
    assert broker.offsets() == {two.partition.key: 2}


async def test_one_of_which_nothing_is_heard_is_tried_again(broker, monkeypatch):
    monkeypatch.setattr(module, "_LATE", 0.01)
    hands = settled(1)
    broker.committing.want(hands.partition)
    await asyncio.sleep(0.1)
    assert len(broker.sent) > 1
    assert not broker.more


async def test_its_late_answer_is_not_the_next_one_s(broker, monkeypatch):
    monkeypatch.setattr(module, "_LATE", 0.01)
    hands = Hands(number=next(numbers))
    hands.publish("a", "b")
    hands.reserve(0)
    hands.partition.demanded = 0
    broker.committing.want(hands.partition)
    await turns()
    hands.partition.demanded = 2
    monkeypatch.setattr(module, "_LATE", 30.0)
    while len(broker.sent) < 2:
        await asyncio.sleep(0.01)
    assert broker.offsets(0) == broker.offsets(1)
    await broker.answer(None, [broker.sent[0][0]])  # of the first
    assert hands.take() == [], "whether the broker has the second is not known"


# Part of a transaction


def wanted(broker: Broker, delivery: Delivery, patience: float = 10.0) -> Job:
    job = Job([], Settlement(delivery, Outcome.ACK), patience=patience)
    broker.committing.together(job)
    return job


async def test_a_message_ends_when_its_transaction_does(broker):
    hands = Hands(number=next(numbers))
    hands.publish("a", "b", "c")
    a, b, _ = hands.take()
    job = wanted(broker, b)
    await turns()
    ((jobs, (sent,)),) = broker.transactions
    assert jobs == [job]
    assert Window.restored(sent.offset, sent.metadata).is_settled(1)
    assert not hands.window.is_settled(1)
    hands.ack(a)
    broker.committing.want(hands.partition)
    await turns()
    assert not broker.sent, "what was settled meanwhile is for the next commit"
    assert not job.done.done()
    broker.ended.set_result(None)
    await turns()
    assert job.done.result() is None
    assert [each.delivery for each in broker.settled] == [b]
    assert broker.offsets() == {hands.partition.key: 1}


async def test_those_that_wait_go_together(broker):
    one, two = Hands(number=next(numbers)), Hands(number=next(numbers))
    for hands in (one, two):
        hands.publish("a", "b")
    jobs = [wanted(broker, each) for each in one.take() + two.take(1)]
    await turns()
    ((found, offsets),) = broker.transactions
    assert found == jobs
    assert {each.partition: each.offset for each in offsets} == {one.partition.key[1]: 2, two.partition.key[1]: 1}
    broker.ended.set_result(None)
    await turns()


async def test_a_transaction_has_no_partition_without_a_message_of_its_own(broker):
    """That may go meanwhile, with a last commit that the transaction would undo."""
    one, two = Hands(number=next(numbers)), settled(1)
    one.publish("a")
    broker.committing.want(two.partition)
    job = wanted(broker, *one.take())
    assert not one.partition.in_transaction
    broker.committing._begin()
    assert one.partition.in_transaction, "before anything else can happen"
    assert not two.partition.in_transaction
    waiting = broker.committing.confirmed()
    await turns()
    ((_, offsets),) = broker.transactions
    assert [each.partition for each in offsets] == [one.partition.key[1]]
    assert broker.offsets() == {two.partition.key: 1}
    await broker.answer(None, broker.told({}))
    assert broker.more == [two.partition]
    assert not waiting.done(), "the transaction is under way"
    broker.ended.set_result(None)
    await turns()
    assert job.done.done()
    assert waiting.done()
    assert broker.more == [two.partition, one.partition]


async def test_a_transaction_that_ends_first(broker):
    one, two = Hands(number=next(numbers)), settled(1)
    one.publish("a", "b")
    a, b = one.take()
    broker.committing.want(two.partition)
    first = wanted(broker, a)
    await turns()
    second = wanted(broker, b)
    broker.ended.set_result(None)
    await turns()
    assert first.done.done()
    assert len(broker.transactions) == 1, "the other commit is not answered yet"
    await broker.answer(BUSY)
    await asyncio.sleep(0.05)
    assert len(broker.transactions) == len(broker.sent) == 2, "and both are tried again"
    broker.ended.set_result(None)
    await turns()
    assert second.done.done()


async def test_one_that_fails_in_company_is_tried_alone(broker):
    hands = Hands(number=next(numbers))
    hands.publish("a", "b")
    jobs = [wanted(broker, each) for each in hands.take()]
    await turns()
    broker.ended.set_exception(NotStored("kafka", "on purpose"))
    await asyncio.sleep(0.05)
    assert [found for found, _ in broker.transactions] == [jobs, jobs[:1]]
    broker.ended.set_exception(NotStored("kafka", "on purpose"))
    await asyncio.sleep(0.05)
    with pytest.raises(NotStored):
        jobs[0].done.result()
    assert broker.transactions[-1][0] == jobs[1:]
    broker.ended.set_result(None)
    await turns()
    assert jobs[1].done.result() is None
    assert not hands.window.is_settled(0)


async def test_an_outage_is_waited_for_once(broker):
    """Not once for each that was in it."""
    hands = Hands(number=next(numbers))
    hands.publish("a", "b", "c")
    jobs = [wanted(broker, each, 0.05) for each in hands.take()]
    await asyncio.sleep(0.1)
    broker.ended.set_exception(NotStored("kafka", "nobody answers"))
    await asyncio.sleep(0.05)
    assert len(broker.transactions) == 1
    for job in jobs:
        with pytest.raises(NotStored, match="nobody answers"):
            job.done.result()


async def test_nobody_is_told_of_another_s_fault(broker):
    hands = Hands(number=next(numbers))
    hands.publish("a", "b")
    jobs = [wanted(broker, each, 0.05) for each in hands.take()]
    await asyncio.sleep(0.1)
    broker.ended.set_exception(PublishError("too large"))
    await asyncio.sleep(0.05)
    for job in jobs:
        with pytest.raises(NotStored, match="safe to retry"):
            job.done.result()


async def test_one_in_doubt_is_not_tried_again(broker):
    hands = Hands(number=next(numbers))
    hands.publish("a", "b")
    jobs = [wanted(broker, each) for each in hands.take()]
    await turns()
    broker.ended.set_exception(InDoubt("on purpose"))
    await asyncio.sleep(0.05)
    assert len(broker.transactions) == 1
    for job in jobs:
        with pytest.raises(InDoubt):
            job.done.result()


async def test_one_whose_message_is_somebody_elses_by_then(broker):
    hands = Hands(number=next(numbers))
    hands.publish("a")
    (a,) = hands.take()
    job = wanted(broker, a)
    hands.partition.disown()
    await turns()
    assert not broker.transactions
    with pytest.raises(LeaseLost, match="orders"):
        job.done.result()


async def test_nothing_is_committed_past_a_transaction(broker):
    """Whatever an earlier commit is told meanwhile."""
    hands = Hands(number=next(numbers))
    hands.publish("a")
    (a,) = hands.take()
    job = wanted(broker, a)
    await turns()
    assert hands.partition.in_transaction
    await broker.answer(None, ())
    await broker.answer(BUSY)
    await asyncio.sleep(0.05)
    assert not broker.sent
    assert not job.done.done()
    broker.ended.set_result(None)
    await turns()
    assert not hands.partition.in_transaction


async def test_at_the_end_those_that_wait_are_told(broker):
    hands = Hands(number=next(numbers))
    hands.publish("a", "b")
    a, b = hands.take()
    began = wanted(broker, a)
    await turns()
    waits = wanted(broker, b)
    broker.committing.close()
    with pytest.raises(LeaseLost):
        waits.done.result()
    broker.ended.set_result(None)
    await turns()
    assert began.done.result() is None


async def test_those_that_are_under_way_at_the_end_are_told_when_it_fails(broker):
    hands = Hands(number=next(numbers))
    hands.publish("a", "b")
    jobs = [wanted(broker, each) for each in hands.take()]
    await turns()
    broker.committing.close()
    ending = asyncio.ensure_future(broker.committing.ended())
    await turns()
    assert not ending.done()
    assert not any(job.done.done() for job in jobs)
    broker.ended.set_exception(NotStored("kafka", "on purpose"))
    await asyncio.wait_for(ending, 1.0)
    assert len(broker.transactions) == 1
    for job in jobs:
        with pytest.raises(LeaseLost):
            job.done.result()


async def test_after_the_end_a_transaction_is_refused(broker):
    hands = Hands(number=next(numbers))
    hands.publish("a", "b")
    a, b = hands.take()
    broker.committing.want(hands.partition)  # its turn comes, and then not any more
    broker.committing.close()
    for each in (a, b):
        with pytest.raises(LeaseLost):
            wanted(broker, each).done.result()
    await turns()
    assert not broker.transactions
    assert broker.committing.confirmed().done()


async def test_none_begins_before_an_earlier_commit_is_answered(broker, monkeypatch):
    """That would come after it, and undo it."""
    monkeypatch.setattr(module, "_LATE", 0.01)
    hands = Hands(number=next(numbers))
    hands.publish("a", "b", "c")
    a, b, c = hands.take()
    hands.ack(a)
    broker.committing.want(hands.partition)
    await turns()
    late = broker.told({})
    monkeypatch.setattr(module, "_LATE", 30.0)
    hands.ack(b)
    job = wanted(broker, c)
    await asyncio.sleep(0.05)
    assert broker.offsets() == {hands.partition.key: 2}, "it was given up, and there is another one"
    await broker.answer(None, broker.told({}))
    await asyncio.sleep(0.05)
    assert not broker.transactions
    await broker.answer(None, late)
    await asyncio.sleep(0.05)
    assert len(broker.transactions) == 1
    broker.ended.set_result(None)
    await turns()
    assert job.done.done()


async def test_nobody_waits_for_ever_for_such_an_answer(broker, monkeypatch):
    monkeypatch.setattr(module, "_LATE", 0.01)
    hands = Hands(number=next(numbers))
    hands.publish("a", "b")
    a, b = hands.take()
    hands.ack(a)
    broker.committing.want(hands.partition)
    await turns()
    job = wanted(broker, b, 0.1)
    await asyncio.sleep(0.3)
    assert not broker.transactions
    with pytest.raises(NotStored):
        job.done.result()


# Waiting


async def test_without_anything_to_commit_nobody_waits(broker):
    assert broker.committing.confirmed().done()


async def test_who_waits_is_told_when_the_broker_has_it(broker):
    broker.committing.want(settled(1).partition)
    before = broker.committing.confirmed()
    await turns()
    during = broker.committing.confirmed()
    assert not before.done()
    assert not during.done()
    await broker.answer()
    assert before.done()
    assert during.done()


async def test_who_wants_something_while_a_commit_is_under_way_waits_for_the_next(broker):
    one = settled(1)
    broker.committing.want(one.partition)
    await turns()
    broker.committing.want(one.partition)
    waiting = broker.committing.confirmed()
    await broker.answer()
    assert not waiting.done()
    await broker.answer()
    assert waiting.done()


async def test_who_waits_goes_on_waiting_when_a_commit_failed(broker):
    broker.committing.want(settled(1).partition)
    waiting = broker.committing.confirmed()
    await turns()
    await broker.answer(BUSY)
    assert not waiting.done()
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await broker.answer()
    assert waiting.done()


async def test_a_waiter_that_gave_up_is_no_error(broker):
    broker.committing.want(settled(1).partition)
    broker.committing.confirmed().cancel()
    await turns()
    await broker.answer()
    assert broker.more


# Partitions go


async def test_a_forgotten_partition_is_never_sent(broker):
    gone, stays = settled(1), settled(2)
    for hands in (gone, stays):
        broker.committing.want(hands.partition)
    broker.committing.forget(gone.partition)
    await turns()
    assert broker.offsets() == {stays.partition.key: 2}


async def test_nor_one_that_is_not_owned_any_more(broker):
    gone = settled(1)
    broker.committing.want(gone.partition)
    waiting = broker.committing.confirmed()
    gone.partition.give_up(suspects=True)
    await turns()
    assert not broker.sent
    assert waiting.done(), "nobody waits for it for ever"


async def test_nor_is_it_tried_again_if_it_went_meanwhile(broker):
    gone, stays = settled(1), settled(2)
    for hands in (gone, stays):
        broker.committing.want(hands.partition)
    waiting = broker.committing.confirmed()
    await turns()
    gone.partition.give_up(suspects=True)
    broker.committing.forget(gone.partition)
    await broker.answer(BUSY)
    await asyncio.sleep(0.05)
    assert broker.offsets() == {stays.partition.key: 2}
    await broker.answer()
    assert waiting.done()
    assert broker.more == [stays.partition]


async def test_nor_between_two_tries(broker):
    gone = settled(1)
    broker.committing.want(gone.partition)
    waiting = broker.committing.confirmed()
    await turns()
    await broker.answer(BUSY)
    broker.committing.forget(gone.partition)
    await asyncio.sleep(0.05)
    assert len(broker.sent) == 1
    assert waiting.done()


# Ending


async def test_after_closing_nothing_is_sent_and_nobody_waits(broker):
    broker.committing.want(settled(1).partition)
    waiting = broker.committing.confirmed()
    broker.committing.close()
    await turns()
    assert not broker.sent
    assert waiting.done()


async def test_an_answer_after_closing_is_nothing(broker):
    broker.committing.want(settled(1).partition)
    await turns()
    broker.committing.close()
    await broker.answer()
    assert not broker.more


async def test_an_answer_to_nothing_is_nothing(broker):
    await broker.answer()
    await broker.answer(BUSY)
    assert not broker.sent
