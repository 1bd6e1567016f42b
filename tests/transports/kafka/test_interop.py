"""Others on the same brokers: kcat, a plain confluent-kafka consumer and producer, and what speaks CloudEvents."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from contextlib import asynccontextmanager
from secrets import token_hex

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event, to_binary_event
from confluent_kafka import Consumer, Producer

from neuralcore import MessageBus, Retention
from neuralcore.messaging.dead_letters import DeadLetters
from tests.servers.missing import need

pytestmark = pytest.mark.timeout(90)

WAIT = 20.0
JSON = {"content_type": "application/json"}


@pytest.fixture
def url(url_with):
    return url_with("lease=2&partitions=1")


@asynccontextmanager
async def messages(url, pattern="orders"):
    async with MessageBus(url) as bus, bus.stream(pattern, group="g") as stream:

        async def following():
            message = await asyncio.wait_for(anext(stream), WAIT)
            await message.ack()
            return message

        await bus.publish(pattern, "first")  # the topic is there, and the group reads it
        assert (await following()).payload == "first"
        yield bus, following


def produce(kafka, topic, value, **options):
    producer = Producer(kafka.config())
    producer.produce(topic, value, **options)
    assert producer.flush(WAIT) == 0


def read(kafka, topic, count):
    consumer = Consumer(kafka.config(group_id=token_hex(4), auto_offset_reset="earliest"))
    consumer.subscribe([topic])
    found = []
    deadline = time.monotonic() + WAIT
    while len(found) < count and time.monotonic() < deadline:
        record = consumer.poll(0.2)
        if record is not None and record.error() is None:
            found.append(record)
    consumer.close()
    assert len(found) == count
    return found


# What others write


async def test_a_plain_record_is_a_raw_payload(kafka_broker, url, prefix):
    async with messages(url) as (_, following):
        produce(kafka_broker, f"{prefix}.orders", b"hello", key=b"ada")
        message = await following()
        assert (message.payload, message.id, message.key, message.priority) == (b"hello", "0-1", "ada", 50)
        assert message.content_type == "application/octet-stream"
        assert message.timestamp > 0


async def test_what_kcat_writes(kafka_broker, url, prefix):
    need("kcat")
    async with messages(url) as (_, following):
        headers = ["ce_specversion=1.0", "ce_id=o-17", "ce_source=till-3", "ce_type=orders", "traceparent=00-1"]
        headers.append("content-type=application/json")
        command = ["kcat", "-P", "-b", kafka_broker.bootstrap, "-t", f"{prefix}.orders"]
        command += [part for header in headers for part in ("-H", header)]
        await asyncio.to_thread(subprocess.run, command, input=b'{"item":"cake"}', check=True, timeout=WAIT)
        message = await following()
        assert (message.id, message.payload) == ("o-17", {"item": "cake"})
        assert dict(message.headers) == {"traceparent": "00-1"}


async def test_an_event_of_the_cloudevents_sdk(kafka_broker, url, prefix):
    from cloudevents.core.v1.event import CloudEvent

    event = CloudEvent(
        {"id": "7", "source": "/shop", "type": "created", "specversion": "1.0", "partitionkey": "ada",
         "datacontenttype": "application/json"},
        {"n": 1},
    )  # fmt: skip
    record = to_binary_event(event)
    async with messages(url) as (_, following):
        produce(kafka_broker, f"{prefix}.orders", record.value, key=record.key, headers=list(record.headers.items()))
        message = await following()
        assert (message.id, message.key, message.payload) == ("7", "ada", {"n": 1})


async def test_a_topic_that_was_there_before(kafka_broker, url, prefix):
    topic = kafka_broker.create_topic(f"{prefix}.orders", partitions=3)
    for partition in range(3):
        produce(kafka_broker, topic, str(partition).encode(), partition=partition)
    async with MessageBus(url) as bus, bus.stream("orders", group="g") as stream:
        assert {(await asyncio.wait_for(anext(stream), WAIT)).payload for _ in range(3)} == {b"0", b"1", b"2"}


async def test_records_that_are_no_messages_are_dead_letters_and_hold_nobody_up(kafka_broker, url, prefix):
    async with messages(url) as (bus, following):
        produce(kafka_broker, f"{prefix}.orders", b"1", headers=[("ce_id", b"bad-time"), ("ce_time", b"yesterday")])
        produce(kafka_broker, f"{prefix}.orders", b"1", headers=[("ce_id", b"\xff\xfe")])
        produce(kafka_broker, f"{prefix}.orders", b"1", headers=[("ce_id", b"p"), ("ce_ncpriority", b"9" * 5000)])
        produce(kafka_broker, f"{prefix}.orders", None, headers=[("ce_id", b"tombstone")])
        await bus.publish("orders", "last")
        payloads = []
        while not payloads or payloads[-1] != "last":
            payloads.append((await following()).payload)
        letters = DeadLetters(bus._link.transport, "orders")
        deadline = time.monotonic() + WAIT
        while len(found := [letter.reason async for letter in letters]) < 3:
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.1)
        assert found == ["undecodable"] * 3


# What others read


async def test_what_is_published_is_a_cloud_event(kafka_broker, url, prefix):
    async with MessageBus(url) as bus:
        bus.create_channel("orders", retention=Retention(count=100))
        id = await bus.publish(
            "orders", {"item": "tea"}, key="table-4", headers={"shop": "Prague", "ce_x": "mine"}, **JSON
        )
        (record,) = await asyncio.to_thread(read, kafka_broker, f"{prefix}.orders", 1)
    headers = dict(record.headers())
    assert headers["shop"] == b"Prague"
    assert headers["nc_header_ce_x"] == b"mine"
    event = from_binary_event(KafkaMessage(headers=headers, key=record.key(), value=record.value()))
    assert (event.get_id(), event.get_type(), event.get_specversion()) == (id, "orders", "1.0")
    assert event.get_source().startswith("urn:neuralcore:bus:")
    assert event.get_extension("partitionkey") == "table-4"
    assert event.get_data() == {"item": "tea"}


async def test_kcat_reads_it(kafka_broker, url, prefix):
    need("kcat")
    async with MessageBus(url) as bus:
        bus.create_channel("orders", retention=Retention(count=100))
        await bus.publish("orders", {"item": "tea"}, **JSON)
        command = [
            "kcat",
            "-C",
            "-b",
            kafka_broker.bootstrap,
            "-t",
            f"{prefix}.orders",
            "-o",
            "beginning",
            "-c",
            "1",
            "-J",
        ]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, check=True, timeout=WAIT
        )
    found = json.loads(done.stdout)
    names = found["headers"][::2]
    assert json.loads(found["payload"]) == {"item": "tea"}
    assert names[:6] == ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "content-type"]


async def test_keys_are_where_java_s_clients_put_them(kafka_broker, prefix, url_with):
    """murmur2, so that a Java producer's messages of a key join ours."""
    keys = [f"key-{n}" for n in range(12)]
    async with MessageBus(url_with("partitions=4")) as bus:
        bus.create_channel("orders", retention=Retention(count=100))
        for key in keys:
            await bus.publish("orders", key, key=key)
        records = await asyncio.to_thread(read, kafka_broker, f"{prefix}.orders", len(keys))
    assert {record.key().decode(): record.partition() for record in records} == {key: murmur2(key) % 4 for key in keys}


def murmur2(text: str) -> int:
    """Kafka's own, from the description of the partitioner in its documentation; the sign is cut off."""
    data, mask, m = text.encode(), 0xFFFFFFFF, 0x5BD1E995
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) // 4 * 4
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    rest = data[whole:]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return (h ^ h >> 15) & 0x7FFFFFFF
