"""A real Kafka of one broker or several.

>>> with KafkaCluster(tmp_path, brokers=3) as kafka:
...     kafka.create_topic("events", partitions=2)
...     producer = confluent_kafka.Producer(kafka.config())
...     kafka.leader("events", 0).kill()
...     kafka.heal()
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tests.servers.certificates import Certificates
from tests.servers.kafka import KafkaServer
from tests.servers.ports import HOST, free_port, until
from tests.servers.proxy import Proxy

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient, ClusterMetadata

__all__ = ["KafkaCluster"]

PATIENCE = 60.0
AGAIN = 5


class KafkaCluster:
    """One broker, or three with everything in three copies of which two must be written.

    ``host`` is another address of this machine than the loopback's, for clients. ``proxied`` puts a Proxy before each
    broker, ``proxies`` in the brokers' order, which all clients go through. ``users`` and ``tls`` are the clients'
    listener's. ``options`` are lines of each server.properties.
    """

    def __init__(
        self,
        folder: Path,
        *,
        brokers: int = 1,
        host: str = HOST,
        proxied: bool = False,
        users: Mapping[str, str] | None = None,
        tls: bool = False,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.users = dict(users or {})
        self.certificates = Certificates.make(folder / "tls") if tls else None
        quorum = {node: free_port() for node in range(1, brokers + 1)}
        self.brokers = [
            KafkaServer(
                folder / f"broker-{node}",
                node=node,
                host=host,
                quorum=quorum,
                users=self.users,
                certificates=self.certificates,
                options=options,
            )
            for node in quorum
        ]
        self.proxies: list[Proxy] = []
        for broker in self.brokers if proxied else ():
            self.proxies.append(Proxy(broker.port))
            broker.advertised = self.proxies[-1].port
        self._admin: AdminClient | None = None

    @property
    def bootstrap(self) -> str:
        return ",".join(broker.bootstrap for broker in self.brokers)

    @property
    def running(self) -> bool:
        return all(broker.running for broker in self.brokers)

    def config(self, **options: Any) -> dict[str, Any]:
        """What a client of confluent-kafka needs to connect, as the first of ``users``.

        ``_`` in the names of ``options`` become dots, but for callbacks': ``enable_idempotence=True, error_cb=print``.
        """
        found: dict[str, Any] = {"bootstrap.servers": self.bootstrap}
        if self.users or self.certificates:
            found["security.protocol"] = ("SASL_" if self.users else "") + ("SSL" if self.certificates else "PLAINTEXT")
        if self.certificates:
            found["ssl.ca.location"] = str(self.certificates.ca)
        if self.users:
            name, password = next(iter(self.users.items()))
            found |= {"sasl.mechanism": "PLAIN", "sasl.username": name, "sasl.password": password}
        return found | {
            name if name.endswith("_cb") else name.replace("_", "."): value for name, value in options.items()
        }

    def admin(self) -> AdminClient:
        from confluent_kafka.admin import AdminClient

        if self._admin is None:
            # It asks the same broker until its connection ends, also one that stands still.
            self._admin = AdminClient(self.config(socket_timeout_ms=10_000), logger=_Silent())
        return self._admin

    def create_topic(self, name: str, *, partitions: int = 1, replicas: int | None = None, **config: str) -> str:
        """In as many copies as there are brokers; returns its name when each partition has a leader.

        ``_`` in the names of ``config`` become dots: ``retention_ms="1000"``.
        """
        from confluent_kafka.admin import NewTopic

        settings = {key.replace("_", "."): value for key, value in config.items()}
        copies = replicas or len(self.brokers)
        made = NewTopic(name, num_partitions=partitions, replication_factor=copies, config=settings)
        self.admin().create_topics([made])[name].result(PATIENCE)
        until(lambda: self._led(name, partitions), timeout=PATIENCE, what=f"{name} to have leaders")
        return name

    def leader(self, topic: str, partition: int = 0) -> KafkaServer:
        """Another broker than the one that said so first may be asked, and not know it yet."""
        node = 0

        def known() -> bool:
            nonlocal node
            node = self._leader(topic, partition)
            return node > 0

        until(known, timeout=20, what=f"a leader of {topic}")
        return next(broker for broker in self.brokers if broker.node == node)

    def _leader(self, topic: str, partition: int) -> int:
        found = self._metadata(topic).topics[topic].partitions.get(partition)
        return -1 if found is None else found.leader

    def start(self) -> KafkaCluster:
        """One broker 2 s, three 7 s; the first time half as much again."""
        for broker in self.brokers:
            if not broker.running:
                broker.start(wait=False)
        for broker in self.brokers:
            broker.wait_ready()
        self.wait_ok()
        return self

    def stop(self) -> None:
        """A single one cleanly. Several are killed: the last of them could not agree with anybody on its end."""
        if len(self.brokers) == 1:
            self.brokers[0].stop()
        self.kill()

    def kill(self) -> None:
        for broker in self.brokers:
            broker.kill()

    def pause(self) -> None:
        for broker in self.brokers:
            broker.pause()

    def resume(self) -> None:
        for broker in self.brokers:
            broker.resume()

    def restart(self, *, kill: bool = False) -> KafkaCluster:
        if kill:
            self.kill()
        else:
            self.stop()
        return self.start()

    def heal(self) -> None:
        """Have all run, agree, and hold all copies again; costs nothing where nothing was hurt."""
        for proxy in self.proxies:
            proxy.heal()
        if not any(broker.hurt or not broker.running for broker in self.brokers):
            return
        for broker in self.brokers:
            broker.resume()
            if not broker.running:
                broker.start(wait=False)
        for broker in self.brokers:
            broker.heal()
        for _ in range(AGAIN):  # the one that is asked may be one that was paused, and not know yet what it missed
            self.wait_ok()
            time.sleep(0.1)

    def wait_ok(self, *, without: Collection[KafkaServer] = (), timeout: float = PATIENCE) -> None:
        """Until all brokers but those are known, and each partition is in sync on all of them that hold it."""
        present = {broker.node for broker in self.brokers if broker not in without}
        until(lambda: self._whole(present), timeout=timeout, what="Kafka to be whole", pause=0.05)

    def close(self) -> None:
        """Stopped for good, its proxies too."""
        self.kill()
        self._admin = None
        for proxy in self.proxies:
            proxy.close()

    def __enter__(self) -> KafkaCluster:
        return self if self.running else self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _metadata(self, topic: str | None = None) -> ClusterMetadata:
        return self.admin().list_topics(topic, timeout=10)

    def _led(self, topic: str, partitions: int) -> bool:
        found = self._metadata(topic).topics[topic].partitions
        return len(found) == partitions and all(partition.leader > 0 for partition in found.values())

    def _whole(self, present: Collection[int]) -> bool:
        from confluent_kafka import KafkaException

        with suppress(KafkaException):
            found = self.admin().list_topics(timeout=2)
            partitions = [partition for topic in found.topics.values() for partition in topic.partitions.values()]
            kept = all({*partition.replicas} & {*present} == {*partition.isrs} for partition in partitions)
            led = all(partition.leader in present for partition in partitions)
            return {*found.brokers} == {*present} and kept and led
        return False


class _Silent:
    """Brokers are killed on purpose; librdkafka need not tell."""

    def log(self, *_: object) -> None: ...
