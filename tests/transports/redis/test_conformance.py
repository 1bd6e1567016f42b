"""The public suite on real servers, in real time, with real processes and servers to kill."""

from __future__ import annotations

import asyncio

import pytest

from neuralcore.testing.conformance import Harness, UrlHarness
from neuralcore.testing.conformance.promise import Promise
from neuralcore.testing.conformance.suite import TransportConformance
from tests.servers import pool
from tests.servers.missing import need
from tests.servers.redis import RedisServer
from tests.servers.redis_cluster import RedisCluster
from tests.transports.promises import some


def version_of(server: RedisServer) -> str:
    with server.client() as client:
        return f"Redis {client.info('server')['redis_version']}"


class RedisHarness(UrlHarness):
    grace = 0.2
    trimming = 2.0

    def __init__(self, server: RedisServer) -> None:
        super().__init__(f"{server.url()}/0?lease=1&poll=0.5")
        self.server = server

    async def restart(self) -> None:
        await asyncio.to_thread(self.server.restart, kill=True)


class _OnARedis(TransportConformance):
    version: str

    def against(self) -> str:
        return version_of(self.running)

    @pytest.fixture(autouse=True)
    def server(self, tmp_path_factory):
        need(f"redis-{self.version}")
        self.running = pool.shared(
            f"redis {self.version} for conformance",
            lambda: RedisServer(tmp_path_factory.mktemp("redis"), version=self.version, appendfsync="always"),
        )

    def make_harness(self) -> Harness:
        return RedisHarness(self.running)


@pytest.mark.slow
class TestRedis70(_OnARedis):
    setup = "redis-7.0"
    version = "7.0"


@pytest.mark.slow
class TestRedis62(_OnARedis):
    """Scripts in place of functions; everything with NEURALCORE_CONFORMANCE=long."""

    setup = "redis-6.2"
    version = "6.2"

    @some(
        "attempts", "crash", "dedup", "delay", "keys", "order", "reclaim", "requests", "restart", "retention", "store"
    )
    def test_promise(self, promise: Promise) -> None:
        super().test_promise(promise)


@pytest.mark.slow
class TestRedis82(_OnARedis):
    """What its newer commands are used for; everything with NEURALCORE_CONFORMANCE=long."""

    setup = "redis-8.2"
    version = "8.2"

    @some("attempts", "crash", "dedup", "delay", "order", "reclaim", "restart", "retention", "seek", "store")
    def test_promise(self, promise: Promise) -> None:
        super().test_promise(promise)


class ClusterHarness(UrlHarness):
    grace = 0.2
    trimming = 2.0

    def __init__(self, cluster: RedisCluster) -> None:
        super().__init__(f"{cluster.url('redis+cluster')}?lease=1&poll=0.5")
        self.cluster = cluster

    async def restart(self) -> None:
        await asyncio.to_thread(self.cluster.restart)


@pytest.mark.slow
@pytest.mark.timeout(120)
class TestCluster(TransportConformance):
    """What is on several servers there; everything with NEURALCORE_CONFORMANCE=long."""

    setup = "redis-cluster"

    def against(self) -> str:
        return f"{version_of(self.running.nodes[0])}, three masters and three replicas"

    @pytest.fixture(autouse=True)
    def cluster(self, tmp_path_factory):
        need("redis-7.0")
        self.running = pool.shared(
            "Redis cluster for conformance",
            lambda: RedisCluster(tmp_path_factory.mktemp("cluster"), appendfsync="always"),
        )

    def make_harness(self) -> Harness:
        return ClusterHarness(self.running)

    @some("crash", "groups", "keys", "patterns", "positions", "registry", "requests", "restart", "stats", "store")
    def test_promise(self, promise: Promise) -> None:
        super().test_promise(promise)
