"""Transactions that settle nothing, until the end; without a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from unittest.mock import Mock

import pytest

from neuralcore.messaging.errors import Closed, NotStored, PublishError
from neuralcore_transports.kafka.together import Job
from neuralcore_transports.kafka.transactions import Publishing, Transacting, _ended
from neuralcore_transports.kafka.transactor import InDoubt


class Broker:
    def __init__(self) -> None:
        self.transactions: list[list[Job]] = []
        self.answer: asyncio.Future[None]
        self.closed = False

    async def __call__(self, jobs: Sequence[Job]) -> None:
        self.transactions.append(list(jobs))
        self.answer = asyncio.get_running_loop().create_future()
        await self.answer

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def publishing(broker: Any) -> Publishing:
    return Publishing(broker)


def wanted(publishing: Publishing, count: int) -> list[Job]:
    jobs = [Job([], patience=10.0) for _ in range(count)]
    for job in jobs:
        publishing.together(job)
    return jobs


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_is_under_way_at_the_end_is_not_tried_again(broker: Broker, publishing: Publishing) -> None:
    jobs = wanted(publishing, 2)
    await turns()
    waits = wanted(publishing, 1)
    closing = asyncio.ensure_future(publishing.close())
    await turns()
    assert not broker.closed
    broker.answer.set_exception(PublishError("of one of them"))
    await asyncio.wait_for(closing, 1.0)
    assert len(broker.transactions) == 1
    assert broker.closed
    for job in jobs + waits + wanted(publishing, 1):
        with pytest.raises(Closed):
            job.done.result()


async def test_one_that_fails_alone_says_why_at_the_end_too(broker: Broker, publishing: Publishing) -> None:
    (job,) = wanted(publishing, 1)
    await turns()
    closing = asyncio.ensure_future(publishing.close())
    await turns()
    broker.answer.set_exception(NotStored("kafka", "on purpose"))
    await asyncio.wait_for(closing, 1.0)
    with pytest.raises(NotStored, match="on purpose"):
        job.done.result()


async def test_a_loop_that_ends_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then all tasks are cancelled, also the one that would tell how it went: who waits is not left waiting."""
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "run_in_executor", lambda *given: loop.create_future())
    transport = Mock()
    publishing = Publishing(Transacting(transport, "x"))
    (job,) = wanted(publishing, 1)
    waits = asyncio.ensure_future(_ended(job))
    await turns()
    for task in (waits, publishing._running):
        assert task is not None
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waits, 1.0)
    with pytest.raises(InDoubt):
        job.done.result()


async def test_an_outage_is_waited_for_once(broker: Broker, publishing: Publishing) -> None:
    jobs = [Job([], patience=0.01) for _ in range(3)]
    for job in jobs:
        publishing.together(job)
    await asyncio.sleep(0.05)
    broker.answer.set_exception(NotStored("kafka", "nobody answers"))
    await turns()
    assert len(broker.transactions) == 1
    for job in jobs:
        with pytest.raises(NotStored, match="nobody answers"):
            job.done.result()
