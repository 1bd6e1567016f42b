from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.servers.fixtures import healed, kafka_broker, kafka_cluster, start_kafka
from tests.servers.kafka_cluster import KafkaCluster
from tests.transports.clients import new_prefix

__all__ = ["healed", "kafka_broker", "kafka_cluster", "start_kafka"]


@pytest.fixture
def prefix() -> str:
    return new_prefix()


@pytest.fixture
def url_with(kafka_broker: KafkaCluster, prefix: str) -> Callable[[str], str]:
    """``url_with("lease=6&partitions=1")``: on the shared broker, under the test's own prefix."""
    return lambda query: f"kafka://{kafka_broker.bootstrap}/{prefix}?{query}"
