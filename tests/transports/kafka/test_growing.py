"""A channel that gets more partitions while a broadcast listens to it."""

from __future__ import annotations

import asyncio
from secrets import token_hex

import pytest
from confluent_kafka import Producer
from confluent_kafka.cimpl import NewPartitions

from neuralcore import MessageBus
from neuralcore.messaging.transport import ChannelRef
from neuralcore_transports.kafka import broadcast
from tests.transports.clients import eventually

pytestmark = pytest.mark.timeout(90)

WAIT = 20.0
KEYS = [f"key {number}" for number in range(30)]


@pytest.fixture
def prefix():
    return f"g{token_hex(4)}"


@pytest.fixture
def url(kafka_broker, prefix):
    return f"kafka://{kafka_broker.bootstrap}/{prefix}?lease=6&partitions=1"


async def said(url, *, partitions=None):
    """By a bus that has just come, and whose client knows all partitions."""
    async with MessageBus(url) as bus:
        if partitions is not None:
            bus.create_channel("orders", partitions=partitions)
        await bus.publish_many([("orders", key, None, {"key": key}) for key in KEYS])


async def test_partitions_that_a_bus_has_added_are_heard_from_their_beginnings(url):
    heard = []
    async with MessageBus(url) as bus:
        await bus.publish("orders", "too early")
        await bus.subscribe("orders", lambda message: heard.append(message.payload), broadcast=True).ready()
        await said(url, partitions=4)
        await eventually(lambda: len(heard) >= len(KEYS), "all of them", WAIT)
        assert sorted(heard) == sorted(KEYS)


async def test_partitions_that_somebody_else_has_added_are_heard_too(kafka_broker, url, prefix, monkeypatch):
    monkeypatch.setattr(broadcast, "_LOOK", 1.0)
    heard, later = [], []
    topic = f"{prefix}.orders"
    async with MessageBus(url) as bus:
        await bus.subscribe("orders", lambda message: heard.append(message.payload), broadcast=True).ready()
        kafka_broker.admin().create_partitions([NewPartitions(topic, 4)])[topic].result(WAIT)
        await said(url)
        await bus.subscribe("orders", lambda message: later.append(message.payload), broadcast=True).ready()
        await eventually(lambda: len(heard) >= len(KEYS), "all of them", WAIT)
        assert sorted(heard) == sorted(KEYS)
        assert bus._link.transport.registrar.registry.channels["orders"].partitions == 4
        await bus.publish("orders", "last")
        await eventually(lambda: later and heard[-1] == "last", "the last one", WAIT)
        assert later == ["last"]
        await asyncio.sleep(1.5)
        assert len(heard) == len(KEYS) + 1


async def test_who_has_published_before_publishes_on(url):
    """Its client knows of one partition, for minutes to come."""
    async with MessageBus(url) as bus, MessageBus(url) as other:
        await bus.publish("orders", "before")
        other.create_channel("orders", partitions=4)
        await other.publish("orders", "there")
        await eventually(lambda: partitions_known(bus) == 4, "it to be told", WAIT)
        for number in range(10):
            await bus.publish("orders", number)
        await bus.publish_many([("orders", number) for number in range(10, 40)])
        async with bus.transaction() as tx:
            for number in range(40, 60):
                await tx.publish("orders", number)
        stream = bus.stream("orders", group="g")
        got = [await asyncio.wait_for(anext(stream), WAIT) for _ in range(62)]
        assert {message.payload for message in got} == {"before", "there", *range(60)}
        assert not bus.metrics().transport.get("data_lost")


async def test_a_group_that_begins_at_new_has_nothing_older_of_partitions_that_somebody_has_added(
    kafka_broker, url, prefix
):
    topic = f"{prefix}.orders"
    async with MessageBus(url) as bus:
        await bus.publish("orders", "first")
        kafka_broker.admin().create_partitions([NewPartitions(topic, 4)])[topic].result(WAIT)
        producer = Producer(kafka_broker.config())
        for partition in range(4):
            producer.produce(topic, b"old", partition=partition)
        assert producer.flush(WAIT) == 0
        heard = []
        subscription = bus.subscribe("orders", lambda message: heard.append(message.payload), group="late", start="new")
        await subscription.ready()
        assert partitions_known(bus) == 4
        await said(url)
        await eventually(lambda: len(heard) >= len(KEYS), "what is new", WAIT)
        assert sorted(heard) == sorted(KEYS)


async def test_a_channel_that_is_removed_and_made_again_is_heard_from_its_beginning(url):
    heard = []
    async with MessageBus(url) as bus:
        await bus.subscribe("*", lambda message: heard.append(message.payload), broadcast=True).ready()
        for number in range(3):
            await bus.publish("orders", f"old {number}")
        await eventually(lambda: len(heard) == 3, "the old ones", WAIT)
        await bus._link.transport.remove(ChannelRef("orders"))
        for number in range(3):
            await bus.publish("orders", f"new {number}")
        await eventually(lambda: "new 2" in heard, "the new ones", WAIT)
        assert heard == [f"{age} {number}" for age in ("old", "new") for number in range(3)]


def partitions_known(bus):
    return bus._link.transport.registrar.registry.channels["orders"].partitions
