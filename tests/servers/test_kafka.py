"""Real Kafka brokers do what they are made for."""

import shutil
import subprocess
import uuid

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from tests.servers.kafka_cluster import KafkaCluster
from tests.servers.missing import need

pytestmark = pytest.mark.timeout(180)


class Quiet:
    def log(self, *_):
        pass


def produce(kafka: KafkaCluster, topic: str, *values: str, timeout: float = 60) -> None:
    """In order into partition 0, each of them acknowledged."""
    failed = []
    producer = Producer(kafka.config(enable_idempotence=True), logger=Quiet())
    for value in values:
        producer.produce(topic, value, partition=0, on_delivery=lambda error, _: error and failed.append(error))
    assert producer.flush(timeout) == 0
    assert not failed


def consume(kafka: KafkaCluster, topic: str, count: int) -> list[str]:
    options = kafka.config(group_id=uuid.uuid4().hex, auto_offset_reset="earliest", enable_auto_commit=False)
    consumer = Consumer(options, logger=Quiet())
    consumer.subscribe([topic])
    found: list[str] = []
    try:
        for _ in range(60):
            message = consumer.poll(1)
            if message is not None and not message.error():
                found.append(message.value().decode())
            if len(found) == count:
                break
    finally:
        consumer.close()
    return found


def test_it_keeps_what_it_is_given(kafka_broker):
    topic = kafka_broker.create_topic("kept", partitions=3, retention_ms="3600000")
    produce(kafka_broker, topic, "one", "two")
    assert consume(kafka_broker, topic, 2) == ["one", "two"]


def test_topics_are_not_made_by_using_them(kafka_broker):
    producer = Producer(kafka_broker.config(topic_metadata_propagation_max_ms=0), logger=Quiet())
    failed = []
    producer.produce("nobody-made-it", b"x", on_delivery=lambda error, _: failed.append(error.code()))
    producer.flush(20)
    assert failed[0] in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}


def test_debians_client_reads_it(kafka_broker):
    need("kcat")
    topic = kafka_broker.create_topic("for-kcat")
    produce(kafka_broker, topic, "hello")
    command = [shutil.which("kcat"), "-b", kafka_broker.bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-q"]
    assert subprocess.run(command, capture_output=True, timeout=30, check=True).stdout == b"hello\n"


@pytest.mark.slow
@pytest.mark.parametrize("kill", [False, True])
def test_data_survive_a_restart(kafka_broker, kill):
    topic = kafka_broker.create_topic(f"survives-{kill}")
    produce(kafka_broker, topic, "before")
    kafka_broker.restart(kill=kill)
    produce(kafka_broker, topic, "after")
    assert consume(kafka_broker, topic, 2) == ["before", "after"]


@pytest.mark.slow
def test_a_paused_one_answers_when_it_goes_on(kafka_broker):
    topic = kafka_broker.create_topic("paused")
    kafka_broker.pause()
    with pytest.raises(KafkaException):
        kafka_broker.admin().list_topics(topic, timeout=1.5)
    kafka_broker.resume()
    produce(kafka_broker, topic, "on")
    assert consume(kafka_broker, topic, 1) == ["on"]


@pytest.mark.slow
def test_the_shared_one_is_killed(kafka_broker):
    kafka_broker.kill()


def test_the_shared_one_runs_for_the_next_test(kafka_broker):
    assert kafka_broker.running
    assert kafka_broker.brokers[0].answers()


@pytest.mark.slow
def test_three_brokers_survive_a_killed_leader(kafka_cluster):
    topic = kafka_cluster.create_topic("three")
    produce(kafka_cluster, topic, "one")
    leader = kafka_cluster.leader(topic)
    leader.kill()
    produce(kafka_cluster, topic, "two")
    kafka_cluster.wait_ok(without=[leader])
    assert kafka_cluster.leader(topic) is not leader
    kafka_cluster.heal()
    produce(kafka_cluster, topic, "three")
    assert consume(kafka_cluster, topic, 3) == ["one", "two", "three"]


@pytest.mark.slow
def test_three_brokers_survive_a_paused_leader(kafka_cluster):
    topic = kafka_cluster.create_topic("three-paused")
    leader = kafka_cluster.leader(topic)
    produce(kafka_cluster, topic, "one")
    leader.pause()
    kafka_cluster.wait_ok(without=[leader])
    leader.resume()
    kafka_cluster.wait_ok()
    produce(kafka_cluster, topic, "two")
    assert consume(kafka_cluster, topic, 2) == ["one", "two"]


@pytest.mark.slow
def test_one_broker_of_three_takes_nothing(kafka_cluster):
    topic = kafka_cluster.create_topic("alone")
    leader = kafka_cluster.leader(topic)
    for broker in kafka_cluster.brokers:
        if broker is not leader:
            broker.kill()
    failed = []
    producer = Producer(kafka_cluster.config(acks="all", message_timeout_ms=4000), logger=Quiet())
    producer.produce(topic, b"x", on_delivery=lambda error, _: failed.append(error))
    producer.flush(20)
    assert failed[0] is not None


@pytest.mark.slow
def test_behind_a_proxy(start_kafka):
    kafka = start_kafka(proxied=True)
    topic = kafka.create_topic("proxied")
    proxy = kafka.proxies[0]
    produce(kafka, topic, "one")
    proxy.partition()
    with pytest.raises(KafkaException):
        kafka.admin().list_topics(topic, timeout=1.5)
    kafka.heal()
    produce(kafka, topic, "two")
    assert consume(kafka, topic, 2) == ["one", "two"]
    assert proxy.counted.to_server > 100


@pytest.mark.slow
def test_passwords_and_tls(start_kafka):
    kafka = start_kafka(users={"bus": "secret"}, tls=True)
    assert kafka.config()["security.protocol"] == "SASL_SSL"
    topic = kafka.create_topic("secured")
    produce(kafka, topic, "one")
    assert consume(kafka, topic, 1) == ["one"]
    failed = []
    wrong = kafka.config(sasl_password="wrong", error_cb=lambda error: failed.append(error.code()))
    producer = Producer(wrong, logger=Quiet())
    producer.poll(5)
    assert KafkaError._AUTHENTICATION in failed
