"""The public suite on real brokers, in real time, with real processes and brokers to kill."""

from __future__ import annotations

import asyncio

import pytest

from neuralcore.testing.conformance import Harness, UrlHarness
from neuralcore.testing.conformance.suite import TransportConformance
from tests.servers import pool
from tests.servers.kafka_cluster import KafkaCluster
from tests.servers.missing import need


class KafkaHarness(UrlHarness):
    grace = 0.3
    trimming = 2.0
    patience = 30.0

    def __init__(self, kafka: KafkaCluster, options: str = "") -> None:
        super().__init__(f"kafka://{kafka.bootstrap}/conformance?lease=2&upkeep=0.5&handover=1{options}")
        self.kafka = kafka

    async def restart(self) -> None:
        await asyncio.to_thread(self.kafka.restart, kill=True)


class _OnKafka(TransportConformance):
    brokers: int

    @pytest.fixture(autouse=True)
    def server(self, tmp_path_factory):
        need("kafka")
        self.running = pool.shared(
            f"kafka of {self.brokers} for conformance",
            lambda: KafkaCluster(tmp_path_factory.mktemp("kafka"), brokers=self.brokers),
        )

    def make_harness(self) -> Harness:
        return KafkaHarness(self.running)


@pytest.mark.slow
class TestOneBroker(_OnKafka):
    brokers = 1
