from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.kafka.stage import KafkaStage
from tests.servers import pool
from tests.servers.fixtures import healed, kafka_broker, kafka_cluster, start_kafka
from tests.servers.kafka_cluster import KafkaCluster
from tests.servers.missing import need

__all__ = ["healed", "kafka_broker", "kafka_cluster", "start_kafka"]


@pytest.fixture
def stage(tmp_path: Path, kafka_broker: KafkaCluster) -> Iterator[KafkaStage]:
    """On the shared broker."""
    with KafkaStage(tmp_path, kafka_broker) as stage:
        yield stage


@pytest.fixture
def mortal(tmp_path: Path, start_kafka: Callable[..., KafkaCluster]) -> Iterator[KafkaStage]:
    """On a broker of its own: one that was killed reads all it has before it serves again, and the shared one has what
    all tests have left.
    """
    with KafkaStage(tmp_path, start_kafka()) as stage:
        yield stage


@pytest.fixture
def net(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaStage]:
    """On a broker that everybody reaches through a proxy only: ``stage.kafka.proxies[0]``."""
    need("kafka")
    kafka = pool.shared("kafka behind a proxy", lambda: KafkaCluster(tmp_path_factory.mktemp("kafka"), proxied=True))
    with KafkaStage(tmp_path, kafka) as stage:
        yield stage
