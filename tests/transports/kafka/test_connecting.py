"""Reaching brokers, or not; what they refuse; what somebody else does to topics and groups."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from urllib.parse import quote

import pytest

from neuralcore import MessageBus, Priority, Retention
from neuralcore.messaging.errors import (
    ChannelConflict,
    PublishManyFailed,
    PublishUnknown,
    TransportError,
    Unavailable,
    Unsupported,
)
from tests.servers.ports import free_port
from tests.transports.clients import eventually

pytestmark = pytest.mark.timeout(90)

WAIT = 20.0


@pytest.fixture
def url(url_with):
    return url_with("lease=2&partitions=1&upkeep=0.5")


async def exchanged(url):
    async with MessageBus(url) as bus, bus.stream("orders", group="g") as stream:
        await bus.publish("orders", "tea")
        message = await asyncio.wait_for(anext(stream), WAIT)
        await message.ack()
        return message.payload


async def published(bus):
    try:
        return await bus.publish("orders", 3)
    except PublishUnknown:
        return None


async def test_nobody_there():
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1"):
        async with MessageBus(f"kafka://127.0.0.1:{free_port()}/x?timeout=1"):
            pass


async def test_with_a_login_and_tls(start_kafka, prefix):
    password = "p@ss:w/rd"
    kafka = start_kafka(users={"ada": password}, tls=True)
    secure = f"security.protocol=SASL_SSL&sasl.mechanism=PLAIN&ssl.ca.location={quote(str(kafka.certificates.ca))}"
    where = f"{kafka.bootstrap}/{prefix}?{secure}&timeout=2"
    assert await exchanged(f"kafka://ada:{quote(password, safe='')}@{where}") == "tea"
    with pytest.raises(TransportError) as caught:
        await exchanged(f"kafka://ada:wrong-one@{where}")
    assert "wrong-one" not in str(caught.value)


async def test_without_the_right_to_make_topics(kafka_broker, url, prefix):
    with pytest.raises(TransportError, match=rf"{prefix}\._registry"):
        await exchanged(f"{url}&create=no")
    kafka_broker.create_topic(f"{prefix}._registry", retention_ms="-1")
    kafka_broker.create_topic(f"{prefix}._inboxes", partitions=2)
    kafka_broker.create_topic(f"{prefix}.orders", partitions=2)
    assert await exchanged(f"{url}&create=no") == "tea"


async def test_partitions_are_added_and_never_taken_away(url):
    async with MessageBus(url) as bus:
        bus.create_channel("orders", partitions=2)
        await bus.publish("orders", 1)
    async with MessageBus(url) as bus:
        bus.create_channel("orders", partitions=3)
        await bus.publish("orders", 2)
        assert bus._link.transport.registrar.registry.channels["orders"].partitions == 3
    async with MessageBus(url) as bus:
        bus.create_channel("orders", partitions=2)
        with pytest.raises(ChannelConflict, match="takes none away"):
            await bus.publish("orders", 3)


async def test_priorities_take_bands(url):
    async with MessageBus(url) as bus:
        with pytest.raises(Unsupported, match="priorities"):
            await bus.publish("orders", 1, priority=Priority.HIGH)


async def test_a_topic_that_somebody_deletes_is_made_again_and_told(kafka_broker, url, prefix, caplog):
    async with MessageBus(f"{url}&patience=3") as bus:
        bus.create_channel("orders", retention=Retention(count=5))
        await bus.publish("orders", 1)
        topic = f"{prefix}.orders"
        kafka_broker.admin().delete_topics([topic])[topic].result(WAIT)
        with caplog.at_level(logging.ERROR, "neuralcore"):
            while await published(bus) is not None:  # the brokers may take some before they have forgotten it
                pass
            while await published(bus) is None:
                pass
        assert bus.metrics().transport["data_lost"] == 1
        assert bus._link.transport.registrar.registry.channels["orders"].count == 5
        assert any("deleted" in record.getMessage() for record in caplog.records)


async def test_what_every_group_has_settled_is_deleted(kafka_broker, url, prefix):
    from confluent_kafka import Consumer, TopicPartition

    assert await exchanged(url) == "tea"
    reader = Consumer(kafka_broker.config(group_id="looking"))
    async with MessageBus(url) as bus:
        await bus.publish("orders", "cake")
        while reader.get_watermark_offsets(TopicPartition(f"{prefix}.orders", 0), 5)[0] < 1:
            await asyncio.sleep(0.1)
        assert reader.get_watermark_offsets(TopicPartition(f"{prefix}.orders", 0), 5) == (1, 2)
    reader.close()


async def test_a_process_that_comes_back_keeps_its_partitions(url_with):
    """Static membership: between its lives nobody else gets them, and the group is not dealt out anew."""
    url = url_with("lease=12&partitions=4")
    keys = [f"key {number}" for number in range(40)]
    heard: dict[str, list[tuple[int, str]]] = {"stays": [], "leaves": []}

    def keys_of(name, turn):
        return {key for number, key in heard[name] if number == turn}

    async def said(bus, turn):
        await bus.publish_many([("orders", (turn, key), None, {"key": key}) for key in keys])

    @asynccontextmanager
    async def worker(name):
        async with MessageBus(f"{url}&instance={name}") as bus:
            bus.subscribe("orders", lambda message: heard[name].append(tuple(message.payload)), group="g")
            yield bus

    async with worker("stays") as bus:
        turn = 0

        def all_heard():
            return len(keys_of("stays", turn) | keys_of("leaves", turn)) == len(keys)

        def dealt_out():
            """As it was a turn before: nothing moves any more."""
            return all(keys_of(name, turn) and keys_of(name, turn) == keys_of(name, turn - 1) for name in heard)

        async with worker("leaves"):
            while not dealt_out():
                turn += 1
                await said(bus, turn)
                await eventually(all_heard, "everything that was said in this turn", WAIT)
        kept, left = keys_of("stays", turn), keys_of("leaves", turn)
        await said(bus, turn + 1)
        await eventually(lambda: keys_of("stays", turn + 1) >= kept, "what belongs to the one that stayed", WAIT)
        await asyncio.sleep(4.5)  # a member hears within a quarter of the lease that its group is dealt out anew
        assert keys_of("stays", turn + 1) == kept
        async with worker("leaves"):
            await eventually(lambda: keys_of("leaves", turn + 1) == left, "what waited for the one that left", WAIT)


async def test_a_partition_that_was_paused_is_read_again_when_it_comes_back(url):
    async with MessageBus(f"{url}&prefetch=20") as bus:
        await bus.publish_many([("orders", number) for number in range(200)])
        gate, got = asyncio.Event(), set()

        async def hold(message):
            await gate.wait()
            got.add(message.payload)

        async def take(message):
            got.add(message.payload)

        def paused():
            (member,) = bus._link.transport.members
            return any(flow._paused for flow in member._session._poller._flows.values())

        held = bus.subscribe("orders", hold, group="g", capacity=1)
        await eventually(paused, "more to wait than is kept", WAIT)
        gate.set()
        await held.unsubscribe()
        bus.subscribe("orders", take, group="g")
        await eventually(lambda: got == set(range(200)), "all of them", WAIT)


async def test_one_channel_that_cannot_be_leaves_the_others_of_a_commit_alone(url):
    async with MessageBus(url) as bus:
        with pytest.raises(PublishManyFailed) as caught:
            await bus.publish_many([("orders", 1), ("o" * 250, 2), ("others", 3)])
        assert list(caught.value.errors) == [1]
        assert "249" in str(caught.value.errors[1])
        assert sorted(await bus._link.transport.channels()) == ["orders", "others"]


async def test_broadcasts_hear_each_message_once_however_slow_they_are_and_whatever_comes_meanwhile(url):
    """Channels come while a pattern is subscribed; more comes than is kept for a slow one."""
    heard: dict[str, list[tuple[str, int]]] = {"slow": [], "quick": []}
    gate = asyncio.Event()
    async with MessageBus(f"{url}&prefetch=10") as bus, MessageBus(url) as other:

        async def slow(message):
            await gate.wait()
            heard["slow"].append((message.channel, message.payload))

        async def quick(message):
            heard["quick"].append((message.channel, message.payload))

        await other.publish("a.first", 0)
        subscriptions = [
            bus.subscribe("a.*", slow, broadcast=True, start="beginning", capacity=1),
            bus.subscribe("a.*", quick, broadcast=True, start="beginning"),
        ]
        for number in range(4):
            await other.publish(f"a.{number}", 0)
        for subscription in subscriptions:
            await subscription.ready()
        for number in range(1, 60):
            await other.publish("a.first", number)
        wanted = [*(("a.first", number) for number in range(60)), *((f"a.{number}", 0) for number in range(4))]
        deadline = asyncio.get_running_loop().time() + WAIT
        while len(heard["quick"]) < len(wanted) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        assert sorted(heard["quick"]) == sorted(wanted), "the slow one does not hold the quick one up"
        gate.set()
        while len(heard["slow"]) < len(wanted) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        assert sorted(heard["slow"]) == sorted(wanted)
