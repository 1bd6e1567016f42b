"""The public suite on real brokers, in real time, with real processes and brokers to kill."""

from __future__ import annotations

import asyncio

import pytest

from neuralcore.testing.conformance import Harness, UrlHarness
from neuralcore.testing.conformance.promise import Promise
from neuralcore.testing.conformance.suite import TransportConformance
from tests.servers import pool
from tests.servers.kafka_cluster import KafkaCluster
from tests.servers.missing import KAFKA, need
from tests.transports.promises import some


class KafkaHarness(UrlHarness):
    grace = 0.3
    trimming = 2.0
    patience = 30.0

    def __init__(self, kafka: KafkaCluster, *, partitions: int) -> None:
        options = f"lease=2&upkeep=0.5&handover=1&partitions={partitions}"
        super().__init__(f"kafka://{kafka.bootstrap}/of-{partitions}?{options}")
        self.kafka = kafka

    async def restart(self) -> None:
        await asyncio.to_thread(self.kafka.restart, kill=True)


class _OnKafka(TransportConformance):
    brokers: int
    partitions: int

    @pytest.fixture(autouse=True)
    def server(self, tmp_path_factory):
        need("kafka")
        self.running = pool.shared(
            f"kafka of {self.brokers} for conformance",
            lambda: KafkaCluster(tmp_path_factory.mktemp("kafka"), brokers=self.brokers),
        )

    def against(self) -> str:
        return f"Kafka {KAFKA}"

    def make_harness(self) -> Harness:
        return KafkaHarness(self.running, partitions=self.partitions)


@pytest.mark.slow
@pytest.mark.timeout(180)
class TestOneBroker(_OnKafka):
    """With one partition everything is in order, as the suite's harnesses expect it of a channel."""

    setup = "kafka-one"
    brokers = 1
    partitions = 1


OF_ONE = {
    "delay.retry_outlives_its_client",
    "expiry.expired",
    "positions.from_an_id",
    "seek.to_the_beginning",
    "seek.to_an_id",
    "seek.to_a_time",
    "seek.browsing_from_an_id",
    "retention.by_count",
    "retention.before_any_group",
    "retention.by_bytes",
    "restart.positions_and_attempts",
    "order.fifo",
    "order.retried_go_behind",
}
"""Their checks expect what one partition has; on several, whether they pass is up to where the messages went."""


@pytest.mark.slow
@pytest.mark.timeout(180)
class TestPartitions(_OnKafka):
    """What more than one partition makes a difference to; everything with NEURALCORE_CONFORMANCE=long."""

    setup = "kafka-partitions"
    why_left_out = (
        "the check expects one partition: messages without a key in order, all with the member that came first"
    )
    brokers = 1
    partitions = 4

    def only(self, promise: Promise) -> bool:
        return str(promise) not in OF_ONE

    @some("crash", "groups", "keys")
    def test_promise(self, promise: Promise) -> None:
        super().test_promise(promise)


@pytest.mark.slow
@pytest.mark.timeout(240)
class TestThreeBrokers(_OnKafka):
    setup = "kafka-three"
    brokers = 3
    partitions = 1

    @some("restart", "crash.killed_in_its_handler", "crash.killed_publisher", "groups.across_processes")
    def test_promise(self, promise: Promise) -> None:
        super().test_promise(promise)
