from __future__ import annotations

from tests.servers.fixtures import healed, redis_cluster, redis_server, start_redis

__all__ = ["healed", "redis_cluster", "redis_server", "start_redis"]
