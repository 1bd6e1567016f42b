from __future__ import annotations

from tests.servers.fixtures import kafka_broker, redis_server

__all__ = ["kafka_broker", "redis_server"]
