from __future__ import annotations

from tests.servers.fixtures import healed, proxy_to, redis_cluster, redis_server, start_redis, start_redis_cluster

__all__ = ["healed", "proxy_to", "redis_cluster", "redis_server", "start_redis", "start_redis_cluster"]
