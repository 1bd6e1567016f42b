"""A real Redis cluster: three masters with a replica each.

>>> with RedisCluster(tmp_path) as cluster:
...     cluster.client().set("key", "value")
...     owner = cluster.owner("key")
...     owner.kill()
...     cluster.wait_ok(without=[owner])        # its replica has taken over, 2 to 3 s
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from tests.servers.certificates import Certificates
from tests.servers.ports import HOST, free_port, until
from tests.servers.redis import RedisServer

if TYPE_CHECKING:
    import redis

__all__ = ["RedisCluster"]

SLOTS = 16_384
PATIENCE = 40.0


class RedisCluster:
    """``node_timeout`` in milliseconds: a dead master is replaced after one to three of them. ``users`` and ``tls`` as
    RedisServer has them.
    """

    def __init__(
        self,
        folder: Path,
        *,
        version: str = "7.0",
        masters: int = 3,
        replicas: int = 1,
        node_timeout: int = 1000,
        appendfsync: Literal["always", "everysec", "no"] | None = "everysec",
        users: Mapping[str, str] | None = None,
        tls: bool = False,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.replicas = replicas
        self.certificates = Certificates.make(folder / "tls") if tls else None
        secured = {"tls-cluster": "yes", "tls-replication": "yes"} if tls else {}
        shared = {"cluster-enabled": "yes", "cluster-node-timeout": str(node_timeout), **secured, **(options or {})}
        self.nodes = [
            RedisServer(
                folder / f"node-{index}",
                version=version,
                appendfsync=appendfsync,
                users=users,
                tls=self.certificates or False,
                options={**shared, "cluster-port": str(free_port())},
                name=f"redis-{index}",
            )
            for index in range(masters * (1 + replicas))
        ]
        self._made = False

    @property
    def running(self) -> bool:
        return all(node.running for node in self.nodes)

    def start(self) -> RedisCluster:
        """3 to 6 s the first time, while the nodes make each other's acquaintance."""
        for node in self.nodes:
            node.start(wait=False)
        for node in self.nodes:
            node.wait_ready()
        if not self._made:
            self._create()
            self._made = True
        self.wait_ok()
        return self

    def stop(self) -> None:
        """Killed: nobody is left to take over, so there is nothing to say good-bye for."""
        for node in self.nodes:
            node.kill()

    def restart(self) -> RedisCluster:
        self.stop()
        return self.start()

    def heal(self) -> None:
        """Have all nodes run and agree; costs nothing where none was hurt. Roles may have changed."""
        if not any(node.hurt or not node.running for node in self.nodes):
            return
        for node in self.nodes:
            node.heal()
        self.wait_ok()

    def url(
        self,
        scheme: str = "redis",
        *,
        node: int = 0,
        user: str | None = None,
        password: str | None = None,
    ) -> str:
        return self.nodes[node].url(scheme, user=user, password=password)

    @property
    def addresses(self) -> list[str]:
        return [f"{HOST}:{node.port}" for node in self.nodes]

    def client(self, **options: Any) -> redis.RedisCluster:
        from redis.cluster import ClusterNode, RedisCluster

        if self.certificates:
            options = {"ssl": True, "ssl_ca_certs": str(self.certificates.ca), **options}
        known = [ClusterNode(HOST, node.port) for node in self.nodes if node.running]
        return RedisCluster(startup_nodes=known, decode_responses=True, **options)

    def masters(self) -> list[RedisServer]:
        """By what the running nodes say now."""
        return [node for node in self.nodes if node.running and self._role(node) == "master"]

    def owner(self, key: str) -> RedisServer:
        """The master that has the key's slot."""
        asked = next(node for node in self.nodes if node.running)
        with asked.client() as client:
            slot = client.execute_command("CLUSTER KEYSLOT", key)
            ports = [master[1] for start, end, master, *_ in _ranges(client) if start <= slot <= end]
        return self._by_port(ports[0])

    def replica_of(self, master: RedisServer) -> RedisServer:
        """A running replica of the master, as its own port says."""
        for node in self.nodes:
            if node is not master and node.running and node.info("replication").get("master_port") == master.port:
                return node
        raise LookupError(f"{master.name} has no replica that runs")

    def wait_ok(self, *, without: Collection[RedisServer] = (), timeout: float = PATIENCE) -> None:
        """Until all nodes but those are of one mind: each slot has a master that runs, and the replicas follow."""
        asked = [node for node in self.nodes if node not in without]
        gone = {node.port for node in without}

        def agreed() -> bool:
            views = [_view(node) for node in asked]
            return None not in views and len(set(views)) == 1 and not gone & {port for _, port in views[0] or ()}

        until(agreed, timeout=timeout, what="the cluster to agree", pause=0.05)

    def __enter__(self) -> RedisCluster:
        return self if self.running else self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def _create(self) -> None:
        command = ["redis-cli", "--cluster", "create", *self.addresses, "--cluster-yes"]
        command += ["--cluster-replicas", str(self.replicas)]
        if self.certificates:
            command += ["--tls", "--cacert", str(self.certificates.ca)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert not done.returncode, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"

    def _role(self, node: RedisServer) -> str:
        return node.info("replication")["role"]

    def _by_port(self, port: int) -> RedisServer:
        return next(node for node in self.nodes if node.port == port)


def _view(node: RedisServer) -> frozenset[tuple[int, int]] | None:
    """The first slots and the ports of those who serve them, as the node sees it; nothing while it is not content."""
    with contextlib.suppress(Exception), node.client(socket_timeout=1.0) as client:
        ranges = _ranges(client)
        served = sum(end - start + 1 for start, end, *_ in ranges)
        found = client.info("replication")
        follows = found["role"] == "master" or found["master_link_status"] == "up"
        content = client.execute_command("CLUSTER INFO")["cluster_state"] == "ok"
        if content and follows and served == SLOTS:
            return frozenset((start, port) for start, _, *servers in ranges for _, port, *_ in servers)
    return None


def _ranges(client: redis.Redis) -> Sequence[Any]:
    """``[start, end, [host, port, …], …]`` each: the master, then its replicas."""
    return client.execute_command("CLUSTER SLOTS")
