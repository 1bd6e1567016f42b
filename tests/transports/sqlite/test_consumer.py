"""What the asynchronous shell of a reader does with what was fetched for a caller that is gone."""

from __future__ import annotations

import asyncio

import pytest

from neuralcore._core import Clock
from neuralcore.messaging.transport import Demand, Envelope, Group, Interest
from neuralcore.testing.conformance.runtime import BareRuntime
from neuralcore_transports.sqlite import SqliteOptions, SqliteTransport


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
