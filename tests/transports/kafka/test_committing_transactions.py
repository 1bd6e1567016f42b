"""The end of a message as part of a transaction: which go together, which are tried again, and what each is told."""

from __future__ import annotations

import asyncio

import pytest

from neuralcore.messaging.errors import LeaseLost, NotStored, PublishError
from neuralcore.messaging.transport import Delivery, Outcome, Settlement
from neuralcore_transports.kafka import committing as module
from neuralcore_transports.kafka.together import Job
from neuralcore_transports.kafka.transactor import InDoubt
from neuralcore_transports.kafka.window import Window
from tests.transports.clients import eventually
from tests.transports.kafka.coordinator import BUSY, Broker, numbers, serving, settled, turns
from tests.transports.kafka.fakes import Hands


@pytest.fixture
async def broker(monkeypatch):
    with serving(monkeypatch) as made:
        yield made


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
    await eventually(lambda: len(broker.transactions) == len(broker.sent) == 2, "both to be tried again")
    broker.ended.set_result(None)
    await turns()
    assert second.done.done()


async def test_one_that_fails_in_company_is_tried_alone(broker):
    hands = Hands(number=next(numbers))
    hands.publish("a", "b")
    jobs = [wanted(broker, each) for each in hands.take()]
    await turns()
    broker.ended.set_exception(NotStored("kafka", "on purpose"))
    await eventually(lambda: len(broker.transactions) > 1, "another try")
    assert [found for found, _ in broker.transactions] == [jobs, jobs[:1]]
    broker.ended.set_exception(NotStored("kafka", "on purpose"))
    await eventually(lambda: len(broker.transactions) > 2, "the other's")
    with pytest.raises(NotStored, match="on purpose"):
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
    await eventually(lambda: all(job.done.done() for job in jobs), "them to be told")
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
    await eventually(lambda: len(broker.sent) > 1, "it to be given up, and another one to be there")
    assert broker.offsets() == {hands.partition.key: 2}
    await broker.answer(None, broker.told({}))
    await asyncio.sleep(0.05)
    assert not broker.transactions
    await broker.answer(None, late)
    await eventually(lambda: broker.transactions, "the transaction")
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
    await eventually(job.done.done, "it to be told")
    assert not broker.transactions
    with pytest.raises(NotStored, match="not tried in time; it is safe to retry"):
        job.done.result()
