"""Topics as a URL and a channel's configuration want them, and as brokers then have them."""

from __future__ import annotations

import asyncio

import pytest

from neuralcore import MessageBus
from neuralcore.messaging.errors import TransportError
from tests.transports.clients import eventually

pytestmark = pytest.mark.timeout(90)

WAIT = 20.0


def url(kafka, prefix, query):
    return f"kafka://{kafka.bootstrap}/{prefix}?lease=6&partitions=1&{query}"


def settings_of(kafka, topic):
    """What was said of it, which is no default of the brokers'."""
    from confluent_kafka.admin import ConfigResource, ConfigSource

    asked = ConfigResource(ConfigResource.Type.TOPIC, topic)
    found = kafka.admin().describe_configs([asked])[asked].result(WAIT)
    return {name: each.value for name, each in found.items() if each.source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value}


async def handled(bus, payload):
    got = asyncio.Queue()
    subscription = bus.subscribe("orders", got.put, group="g")
    await bus.publish("orders", payload)
    assert (await asyncio.wait_for(got.get(), WAIT)).payload == payload
    await subscription.unsubscribe()


async def test_one_channel_may_not_be_made_and_others_are(kafka_broker, prefix):
    async with MessageBus(url(kafka_broker, prefix, "upkeep=5")) as bus:
        bus.create_channel("orders", create=False)
        with pytest.raises(TransportError, match=rf"topics {prefix}\.orders are not there, and create= says not"):
            await bus.publish("orders", "tea")
        await bus.publish("others", "cake")
        topics = kafka_broker.admin().list_topics(timeout=WAIT).topics
        assert f"{prefix}.orders" not in topics
        assert f"{prefix}.others" in topics
    kafka_broker.create_topic(f"{prefix}.orders", partitions=3)
    async with MessageBus(url(kafka_broker, prefix, "upkeep=5")) as bus:
        bus.create_channel("orders", create=False)
        await handled(bus, "tea")
        assert bus._link.transport.registrar.registry.channels["orders"].partitions == 3


@pytest.mark.parametrize("trim", ["yes", "no"])
async def test_without_trimming_what_is_settled_stays_as_long_as_the_brokers_say(kafka_broker, prefix, trim):
    from confluent_kafka import Consumer, TopicPartition

    topic = f"{prefix}.orders"
    reader = Consumer(kafka_broker.config(group_id="looking"))

    def kept():
        return reader.get_watermark_offsets(TopicPartition(topic, 0), 5)

    async with MessageBus(url(kafka_broker, prefix, f"trim={trim}&upkeep=0.3")) as bus:
        await handled(bus, "tea")
        if trim == "yes":
            await eventually(lambda: kept() == (1, 1), "what is settled to go", WAIT)
        else:
            await asyncio.sleep(1)
            assert kept() == (0, 1)
    reader.close()
    assert settings_of(kafka_broker, topic).get("retention.ms") == (None if trim == "no" else "-1")


@pytest.mark.slow
async def test_there_are_as_many_copies_as_the_url_or_the_channel_says(kafka_cluster, prefix):
    async with MessageBus(url(kafka_cluster, prefix, "replication=2")) as bus:
        bus.create_channel("orders", replication=3)
        bus.create_channel("jobs", replication=1, partitions=2)
        for channel in ("orders", "jobs", "others"):
            await bus.publish(channel, 1)

        @bus.subscribe("ask", group="g")
        async def answer(message):
            return "yes"

        assert await bus.request("ask", "?", timeout=WAIT) == "yes"
    topics = kafka_cluster.admin().list_topics(timeout=WAIT).topics
    copies = {
        name.removeprefix(f"{prefix}."): {len(partition.replicas) for partition in each.partitions.values()}
        for name, each in topics.items()
        if name.startswith(f"{prefix}.")
    }
    assert copies == {"orders": {3}, "jobs": {1}, "others": {2}, "ask": {2}, "_registry": {2}, "_inboxes": {2}}


async def test_brokers_that_make_topics_by_themselves_make_none_of_ours(start_kafka):
    """As they do for whoever asks for one by its name, unless they are told otherwise."""
    kafka = start_kafka(options={"auto.create.topics.enable": "true", "num.partitions": "3"})
    async with MessageBus(f"kafka://{kafka.bootstrap}/nc?partitions=2&inboxes=5") as bus:

        @bus.subscribe("orders", group="g")
        async def answer(message):
            return "cake"

        assert await bus.request("orders", "tea", timeout=WAIT) == "cake"
        await bus._link.transport.stats()
    topics = kafka.admin().list_topics(timeout=WAIT).topics
    ours = {name: len(topic.partitions) for name, topic in topics.items() if name.startswith("nc.")}
    assert ours == {"nc._registry": 1, "nc._inboxes": 5, "nc.orders": 2}
    assert settings_of(kafka, "nc._registry")["retention.ms"] == "-1"
    assert settings_of(kafka, "nc.orders")["retention.ms"] == "-1"


@pytest.mark.parametrize("how", [{"broadcast": True}, {"group": "g"}])
async def test_several_may_subscribe_to_a_new_channel_at_once(kafka_broker, prefix, how):
    got = asyncio.Queue()
    bus = MessageBus(url(kafka_broker, prefix, ""))
    for _ in range(2):
        bus.subscribe("orders", got.put, **how)
    async with bus:
        await bus.publish("orders", "tea")
        assert (await asyncio.wait_for(got.get(), WAIT)).payload == "tea"
