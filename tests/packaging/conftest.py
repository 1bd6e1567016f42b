from __future__ import annotations

from tests.servers.fixtures import healed, kafka_broker, redis_cluster, redis_server, start_redis

__all__ = ["healed", "kafka_broker", "redis_cluster", "redis_server", "start_redis"]
