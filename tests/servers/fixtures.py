"""Fixtures for the conftest.py of whatever folder wants real servers:

>>> from tests.servers.fixtures import healed, kafka_broker, redis_server
>>> __all__ = ["healed", "kafka_broker", "redis_server"]

What is shared is started once in a run, however many folders import it, and keeps its data: take keys and topics of
your own. A test may kill, pause or restart it if ``healed`` is imported too, which has it serve again before the next
test. ``start_redis`` gives a test a server of its own in 0.1 s, ``start_kafka`` in 3 s. All skip where a server is
missing: see missing.py. Three brokers take 10 s before the first test has its turn: ``@pytest.mark.timeout(180)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.servers import pool
from tests.servers.kafka_cluster import KafkaCluster
from tests.servers.missing import need
from tests.servers.proxy import Proxy
from tests.servers.redis import RedisServer
from tests.servers.redis_cluster import RedisCluster

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


@pytest.fixture(autouse=True)
def healed() -> Iterator[None]:
    """The shared servers serve again after a test that hurt them; costs nothing after others."""
    yield
    pool.heal()


@pytest.fixture(scope="session")
def redis_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RedisServer:
    """Shared, 7.0; others by ``@pytest.mark.parametrize("redis_server", REDIS_VERSIONS, indirect=True)``."""
    version: str = getattr(request, "param", "7.0")
    need(f"redis-{version}")
    return pool.shared(
        f"redis {version}",
        lambda: RedisServer(tmp_path_factory.mktemp("redis"), version=version, unixsocket=True),
    )


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> RedisCluster:
    """Shared: three masters, three replicas."""
    need("redis-7.0", "redis-cli")
    return pool.shared("redis cluster", lambda: RedisCluster(tmp_path_factory.mktemp("cluster")))


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """``start_redis(version="8.2", appendfsync="always")``: the test's own, stopped at its end."""
    with ExitStack() as stopped:

        def start(**options: Any) -> RedisServer:
            need(f"redis-{options.get('version', '7.0')}", *(["openssl"] if options.get("tls") else []))
            options.setdefault("name", f"redis-{len(list(tmp_path.iterdir()))}")
            return stopped.enter_context(RedisServer(tmp_path / options["name"], **options))

        yield start


@pytest.fixture
def start_redis_cluster(tmp_path: Path) -> Iterator[Callable[..., RedisCluster]]:
    """``start_redis_cluster(replicas=0, tls=True)``: the test's own, killed at its end."""
    with ExitStack() as stopped:

        def start(**options: Any) -> RedisCluster:
            need("redis-7.0", "redis-cli", *(["openssl"] if options.get("tls") else []))
            return stopped.enter_context(RedisCluster(tmp_path / "cluster", **options))

        yield start


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> KafkaCluster:
    """Shared: a cluster of one."""
    need("kafka")
    return pool.shared("kafka broker", lambda: KafkaCluster(tmp_path_factory.mktemp("kafka")))


@pytest.fixture(scope="session")
def kafka_cluster(tmp_path_factory: pytest.TempPathFactory) -> KafkaCluster:
    """Shared: three brokers, three copies, two in sync."""
    need("kafka")
    return pool.shared("kafka cluster", lambda: KafkaCluster(tmp_path_factory.mktemp("kafka"), brokers=3))


@pytest.fixture
def start_kafka(tmp_path: Path) -> Iterator[Callable[..., KafkaCluster]]:
    """``start_kafka(brokers=1, proxied=True)``: the test's own, killed at its end."""
    with ExitStack() as stopped:

        def start(**options: Any) -> KafkaCluster:
            need("kafka", *(["openssl"] if options.get("tls") else []))
            folder = tmp_path / f"kafka-{len(list(tmp_path.iterdir()))}"
            return stopped.enter_context(KafkaCluster(folder, **options))

        yield start


@pytest.fixture
def proxy_to() -> Iterator[Callable[[int], Proxy]]:
    """``proxy_to(server.port)``: a Proxy, closed at the test's end."""
    with ExitStack() as closed:
        yield lambda port: closed.enter_context(Proxy(port))
