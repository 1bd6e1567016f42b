"""What the asynchronous shell of a reader does with what was fetched for a caller that is gone."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import time
from contextlib import closing

import pytest

from neuralcore import MessageBus
from neuralcore._core import Clock
from neuralcore.messaging.transport import Demand, Envelope, Group, GroupRef, Interest, Outcome, Settlement
from neuralcore.testing.conformance.runtime import BareRuntime
from neuralcore_transports.sqlite import SqliteOptions, SqliteTransport
from neuralcore_transports.sqlite.client import StoreClient
from neuralcore_transports.sqlite.errors import StoreCorrupt
from neuralcore_transports.sqlite.opening import connect
from neuralcore_transports.sqlite.store.moment import Limits
from neuralcore_transports.sqlite.store.store import Store
from neuralcore_transports.sqlite.store.transaction import Book


@pytest.fixture
async def transport(tmp_path):
    made = SqliteTransport(SqliteOptions(tmp_path / "bus.db"))
    await made.open(BareRuntime(Clock()))
    yield made
    await made.close()


def envelope(channel, number):
    return Envelope(id=f"{channel}-{number}", channel=channel, body=b"1")


@pytest.fixture
async def left_over(transport):
    """A consumer that has fetched one message of "slow" for a caller that was cancelled."""
    consumer = await transport.consume(Group("g"))
    await consumer.update([Interest(id=1, pattern="slow"), Interest(id=2, pattern="quick")])
    await transport.commit([envelope("slow", 0)])
    fetching = asyncio.ensure_future(consumer.fetch({1: Demand(1), 2: Demand(1)}, 5.0))
    while consumer._waiting._taking is None:
        await asyncio.sleep(0)
    fetching.cancel()
    await asyncio.wait({fetching})
    while not consumer._fetched:
        await asyncio.sleep(0.001)
    return consumer


async def test_the_next_one_gets_it(left_over):
    (delivery,) = await left_over.fetch({1: Demand(1)}, 5.0)
    assert delivery.envelope.id == "slow-0"


async def test_whoever_does_not_want_it_waits_as_if_nothing_had_come(left_over):
    """Or a feeder whose other subscription is busy would ask again and again."""
    fetching = asyncio.ensure_future(left_over.fetch({1: Demand(0), 2: Demand(1)}, 0.3))
    done, _ = await asyncio.wait({fetching}, timeout=0.1)
    assert not done
    assert await fetching == []


async def test_whoever_does_not_want_it_gets_what_he_wants(transport, left_over):
    fetching = asyncio.ensure_future(left_over.fetch({1: Demand(0), 2: Demand(1)}, 10.0))
    await transport.commit([envelope("quick", 0)])
    (delivery,) = await fetching
    assert delivery.envelope.id == "quick-0"


async def test_what_was_for_a_subscription_that_is_gone_is_handed_out_to_be_given_back(left_over):
    await left_over.update([Interest(id=2, pattern="quick")])
    (delivery,) = await left_over.fetch({2: Demand(1)}, 5.0)
    assert delivery.interest == 1


@pytest.fixture
async def waiting(transport):
    """A fetch that has looked and waits, and the consumer."""
    consumer = await transport.consume(Group("g"))
    await consumer.update([Interest(id=1, pattern="jobs")])
    fetching = asyncio.ensure_future(consumer.fetch({1: Demand(3)}, 30.0))
    while not consumer._covered:
        await asyncio.sleep(0.001)
    return consumer, fetching


def counted(transport, monkeypatch):
    """The steps that its store's thread takes."""
    steps = []
    made = transport._client._step

    def counting(step):
        steps.append(step)
        return made(step)

    monkeypatch.setattr(transport._client, "_step", counting)
    return steps


async def test_a_commit_brings_what_it_stores_to_whoever_waits(transport, waiting, monkeypatch):
    _, fetching = waiting
    steps = counted(transport, monkeypatch)
    await transport.commit([envelope("jobs", 0)])
    assert [delivery.envelope.id for delivery in await fetching] == ["jobs-0"]
    assert len(steps) == 1


async def test_it_brings_what_was_asked_for_last_while_nobody_asks(transport, waiting, monkeypatch):
    consumer, fetching = waiting
    await transport.commit([envelope("jobs", 0)])
    await fetching
    steps = counted(transport, monkeypatch)
    await transport.commit([envelope("jobs", number) for number in range(1, 5)])
    assert [delivery.envelope.id for delivery in await consumer.fetch({1: Demand(2)}, 5.0)] == ["jobs-1", "jobs-2"]
    assert len(steps) == 1, "three were wanted and one had come"
    assert [delivery.envelope.id for delivery in await consumer.fetch({1: Demand(2)}, 5.0)] == ["jobs-3", "jobs-4"]
    assert len(steps) == 2


async def test_a_commit_whose_caller_is_gone_brings_it_too(transport, waiting):
    _, fetching = waiting
    committing = asyncio.ensure_future(transport.commit([envelope("jobs", 0)]))
    await asyncio.sleep(0)
    committing.cancel()
    assert [delivery.envelope.id for delivery in await fetching] == ["jobs-0"]


async def test_a_commit_that_fails_leaves_the_waiting_to_look_themselves(transport, waiting):
    _, fetching = waiting
    with pytest.raises(AttributeError, match="startswith"):
        await transport.commit([Envelope(id="x", channel=5, body=b"")])
    await transport.commit([envelope("jobs", 1)])
    assert [delivery.envelope.id for delivery in await fetching] == ["jobs-1"]


async def test_what_comes_for_nobody_goes_back(transport, waiting):
    consumer, fetching = waiting
    await transport.commit([envelope("jobs", 0)])
    await fetching
    await transport.commit([envelope("jobs", 1)])
    await consumer.update([])
    again = await transport.consume(Group("g"))
    await again.update([Interest(id=1, pattern="jobs")])
    assert [delivery.envelope.id for delivery in await again.fetch({1: Demand(2)}, 5.0)] == ["jobs-1"]


async def test_what_was_fetched_ahead_goes_back_when_its_consumer_closes(transport, waiting):
    consumer, fetching = waiting
    await transport.commit([envelope("jobs", 0)])
    await fetching
    await transport.commit([envelope("jobs", 1)])
    await consumer.close()
    again = await transport.consume(Group("g"))
    await again.update([Interest(id=1, pattern="jobs")])
    assert [delivery.envelope.id for delivery in await again.fetch({1: Demand(2)}, 5.0)] == ["jobs-1"]


async def test_nobody_looks_because_of_what_this_process_has_written_itself(transport, waiting, monkeypatch):
    """The keeper, which has another connection, sees that there was something. Now and then it does so between the
    commit and its being known as this process's own, and there is one look too many.
    """
    consumer, fetching = waiting
    looks = []
    steps = counted(transport, monkeypatch)
    for number in range(5):
        await transport.commit([envelope("jobs", number)])
        (delivery,) = await fetching
        fetching = asyncio.ensure_future(consumer.fetch({1: Demand(1)}, 30.0))
        await asyncio.sleep(0.05)
        steps.clear()
        await transport.commit([], [Settlement(delivery, Outcome.ACK)])
        done, _ = await asyncio.wait({fetching}, timeout=0.2)
        assert not done
        looks.append(len(steps) - 1)
    assert min(looks) == 0
    assert max(looks) <= 1
    fetching.cancel()


async def test_what_another_process_stores_comes_although_this_one_writes_too(transport, waiting, tmp_path):
    consumer, fetching = waiting
    await transport.commit([envelope("jobs", 0)])
    (delivery,) = await fetching
    fetching = asyncio.ensure_future(consumer.fetch({1: Demand(1)}, 30.0))
    with closing(connect(tmp_path / "bus.db")) as connection:
        now = transport._clock.now()
        Store(Book(connection), Limits()).commit([envelope("jobs", 1)], [], now)
    await transport.commit([], [Settlement(delivery, Outcome.ACK)])
    assert [each.envelope.id for each in await asyncio.wait_for(fetching, 5.0)] == ["jobs-1"]


async def test_published_and_handled_one_by_one_each_message_takes_one_step(tmp_path, monkeypatch):
    """The next publish brings along the last one's settlement, and to whoever waits what it stores."""
    async with MessageBus(f"sqlite://{tmp_path}/bus.db") as bus:
        seen = []

        async def handler(message):
            seen.append(message.payload)

        await bus.subscribe("jobs", handler, group="g").ready()
        steps = counted(bus._link.transport, monkeypatch)
        for number in range(100):
            await bus.publish("jobs", number)
        while len(seen) < 100:
            await asyncio.sleep(0.001)
        assert len(steps) < 125, len(steps)


async def test_what_a_client_writes_itself_is_no_news_to_it(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(SqliteTransport, "_from_elsewhere", lambda self: told.append(1))
    made = SqliteTransport(SqliteOptions(tmp_path / "bus.db"))
    await made.open(BareRuntime(Clock()))
    try:
        for number in range(200):
            await made.commit([envelope("jobs", number)])
        assert len(told) < 10, "but for what its keeper has written"
    finally:
        await made.close()


async def test_what_a_commit_hands_out_right_after_a_seek_is_not_taken_for_lost(transport, waiting):
    consumer, fetching = waiting
    seeking = asyncio.ensure_future(consumer.seek(1, "beginning"))
    await asyncio.sleep(0)
    committing = asyncio.ensure_future(transport.commit([envelope("jobs", 0)]))
    await asyncio.sleep(0)
    time.sleep(0.3)  # noqa: ASYNC251 - both are done by the time that the loop hears of either
    await asyncio.gather(seeking, committing)
    assert [delivery.envelope.id for delivery in await asyncio.wait_for(fetching, 5.0)] == ["jobs-0"]


async def test_who_cannot_read_what_is_his_hears_of_it_also_under_a_flood_of_commits(transport, waiting, monkeypatch):
    _, fetching = waiting

    def broken(*arguments):
        raise sqlite3.DatabaseError("malformed")

    monkeypatch.setattr(transport._client._store._fetcher, "fetch", broken)
    for number in range(100):
        await transport.commit([envelope("jobs", number)])
    assert fetching.done()
    with pytest.raises(StoreCorrupt):
        await fetching


async def test_a_client_that_is_never_idle_hears_of_channels_and_lost_leases(transport, tmp_path, monkeypatch):
    """Its own transactions see what others store, and not these."""
    consumer = await transport.consume(Group("g"))
    await consumer.update([Interest(id=1, pattern="slow")])
    await transport.commit([envelope("slow", 0)])
    assert await consumer.fetch({1: Demand(1)}, 5.0)
    numbers = itertools.count()
    monkeypatch.setattr(StoreClient, "begun", property(lambda self: next(numbers)))
    events, now = transport._runtime.events, transport._clock.now()
    with closing(connect(tmp_path / "bus.db")) as connection:
        store = Store(Book(connection), Limits())
        store.commit([envelope("new", 0)], (), now)
        store.remove(GroupRef("g", "slow"), now)
    deadline = time.monotonic() + 20.0
    while not {"channels changed", "lost 1"} <= set(events) and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    assert {"channels changed", "lost 1"} <= set(events)
