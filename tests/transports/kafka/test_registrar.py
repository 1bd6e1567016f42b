"""Whose registry that is."""

from __future__ import annotations

import json

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from neuralcore import MessageBus
from neuralcore_transports.kafka import NotOurs
from neuralcore_transports.kafka.registry import FORMAT, Channel, Format, written
from tests.servers.kafka_cluster import KafkaCluster

pytestmark = pytest.mark.timeout(90)


def append(broker: KafkaCluster, prefix: str, *values: bytes) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for value in values:
        producer.produce(f"{prefix}._registry", value, partition=0)
    assert producer.flush(20) == 0


def log_of(broker: KafkaCluster, prefix: str) -> list[bytes]:
    place = TopicPartition(f"{prefix}._registry", 0)
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": prefix, "enable.auto.commit": False})
    try:
        _, end = consumer.get_watermark_offsets(place, 20)
        consumer.assign([TopicPartition(place.topic, 0, 0)])
        return [consumer.poll(20).value() for _ in range(end)]  # type: ignore[union-attr,misc]
    finally:
        consumer.close()


def url_of(broker: KafkaCluster, prefix: str) -> str:
    return f"kafka://{broker.bootstrap}/{prefix}"


async def used(broker: KafkaCluster, prefix: str) -> None:
    async with MessageBus(url_of(broker, prefix)) as bus:
        await bus.publish("orders", 1)


async def test_a_new_log_begins_with_its_format(kafka_broker: KafkaCluster, prefix: str) -> None:
    await used(kafka_broker, prefix)
    await used(kafka_broker, prefix)
    first, *others = log_of(kafka_broker, prefix)
    assert json.loads(first) == {"type": "format", "version": FORMAT}
    assert not [each for each in others if json.loads(each)["type"] == "format"]


async def test_a_log_that_was_begun_without_one_is_told_it(kafka_broker: KafkaCluster, prefix: str) -> None:
    for name in ("_registry", "orders"):
        kafka_broker.create_topic(f"{prefix}.{name}")
    append(kafka_broker, prefix, written(Channel("orders", 1)))
    await used(kafka_broker, prefix)
    assert json.loads(log_of(kafka_broker, prefix)[1]) == {"type": "format", "version": FORMAT}


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (written(Format(FORMAT + 1)), rf"its format is {FORMAT + 1}, and ours {FORMAT}"),
        (b'{"order": 17}', "at 0 there is what is no change"),
    ],
    ids=["of another version", "of somebody else"],
)
async def test_another_log_is_refused_and_left_as_it_is(
    kafka_broker: KafkaCluster, prefix: str, first: bytes, reason: str
) -> None:
    kafka_broker.create_topic(f"{prefix}._registry")
    append(kafka_broker, prefix, first)
    says = rf"topic '{prefix}\._registry' in Kafka at .* is not a bus's: {reason}.*; use another prefix"
    with pytest.raises(NotOurs, match=says):
        await used(kafka_broker, prefix)
    assert log_of(kafka_broker, prefix) == [first]


async def test_what_is_no_change_later_on_is_skipped(kafka_broker: KafkaCluster, prefix: str) -> None:
    await used(kafka_broker, prefix)
    append(kafka_broker, prefix, b"\xff")
    await used(kafka_broker, prefix)
