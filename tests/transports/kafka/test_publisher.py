"""The producer: its queue may be full, and is emptied at the end."""

from __future__ import annotations

import asyncio
import logging

import pytest

from neuralcore import MessageBus
from neuralcore.messaging.codec import decode
from neuralcore.messaging.errors import PublishManyFailed, PublishUnknown
from neuralcore_transports.kafka import publisher as module
from neuralcore_transports.kafka.clients import Clients
from neuralcore_transports.kafka.options import KafkaOptions
from neuralcore_transports.kafka.publisher import Outgoing, Publisher, handed_over
from neuralcore_transports.kafka.statistics import Statistics
from tests.transports.clients import eventually
from tests.transports.kafka.fakes import a_silence

pytestmark = pytest.mark.timeout(90)

ROOM = 20


@pytest.fixture
def url(url_with):
    return url_with("partitions=1")


@pytest.fixture
def full(monkeypatch):
    """How full the queue was whenever it had no room."""
    lengths = []

    def watched(producer, *arguments):
        done = original(producer, *arguments)
        if not done:
            lengths.append(len(producer))
        return done

    original = module.handed_over
    monkeypatch.setattr(module, "handed_over", watched)
    return lengths


async def payloads(bus, channel):
    """In the order of the log."""
    found, cursor = [], "beginning"
    while cursor is not None:
        page = await bus._link.transport.browse(channel, cursor, 1000)
        found += [decode(envelope.content_type, envelope.body, int) for envelope in page.envelopes]
        cursor = page.next
    return found


async def test_a_full_queue_makes_publishers_wait_and_loses_nothing(url, full):
    async with MessageBus(f"{url}&queue.buffering.max.messages={ROOM}&linger.ms=5") as bus:
        await bus.publish_many([("orders", number) for number in range(1000)])
        assert full, "there was always room"
        assert max(full) < 2 * ROOM, "log lines count as well, and nothing else"
        assert await payloads(bus, "orders") == list(range(1000))
        del full[:]
        await asyncio.gather(*(bus.publish("others", number) for number in range(1000)))
        assert full
        assert sorted(await payloads(bus, "others")) == list(range(1000))


async def test_what_the_producer_has_when_the_bus_closes_is_stored(url):
    """Who publishes while his bus closes is told that he cannot know."""
    bus = MessageBus(f"{url}&linger.ms=500")
    await bus.start()
    await bus.publish("orders", -1)
    publishing = asyncio.create_task(bus.publish_many([("orders", number) for number in range(100)]))
    await eventually(lambda: len(bus._link.transport.publisher._current.producer) == 100, "all with the producer")
    await bus.close()
    with pytest.raises(PublishManyFailed) as caught:
        await publishing
    assert {type(error) for error in caught.value.errors.values()} == {PublishUnknown}
    async with MessageBus(url) as bus:
        assert await payloads(bus, "orders") == list(range(-1, 100))


async def test_a_publisher_that_closes_sends_what_it_has(kafka_broker, prefix):
    topic = kafka_broker.create_topic(prefix)
    options = KafkaOptions.from_url(f"kafka://{kafka_broker.bootstrap}/x?linger.ms=1000")
    clients = Clients(options, "test", lambda error: None, Statistics(lambda *_: None, lambda *_: None, 10))
    made, told = Publisher(clients, lambda what, *arguments: None, name="producer", silence=a_silence), []
    made.start()
    for number in range(100):
        record = Outgoing(topic, 0, b"%d" % number, None, [])
        assert handed_over(made._generation().producer, record, lambda error, record: told.append(error))
    assert len(told) < 100, "they were sent before it closes"
    await asyncio.to_thread(made.close, 10)
    assert told == [None] * 100


async def test_the_client_library_logs_where_python_does(url, caplog):
    with caplog.at_level(logging.DEBUG, "neuralcore.kafka"):
        async with MessageBus(f"{url}&fetch.min.bytes=1") as bus:  # a producer has none, and says so
            await bus.publish("orders", 1)

            def said():
                return [each for each in caplog.records if "fetch.min.bytes" in each.getMessage()]

            await eventually(said, "a line of the client library's", 10)
    assert {each.name for each in said()} == {"neuralcore.kafka"}
    assert {each.levelno for each in said()} == {logging.WARNING}
