"""Everything in here starts real servers; what takes more than a moment is marked slow."""

from tests.servers.fixtures import (
    healed,
    kafka_broker,
    kafka_cluster,
    proxy_to,
    redis_cluster,
    redis_server,
    start_kafka,
    start_redis,
    start_redis_cluster,
)

__all__ = [
    "healed",
    "kafka_broker",
    "kafka_cluster",
    "proxy_to",
    "redis_cluster",
    "redis_server",
    "start_kafka",
    "start_redis",
    "start_redis_cluster",
]
