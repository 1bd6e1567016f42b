from __future__ import annotations

from tests.servers.fixtures import healed, kafka_broker, kafka_cluster, start_kafka

__all__ = ["healed", "kafka_broker", "kafka_cluster", "start_kafka"]
