"""A real Kafka broker, KRaft, no container; usually one of a KafkaCluster."""

from __future__ import annotations

import contextlib
import shlex
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

from tests.servers.certificates import Certificates
from tests.servers.missing import find
from tests.servers.ports import HOST, free_port
from tests.servers.process import ServerProcess

__all__ = ["KafkaServer", "libraries"]

CLUSTER_ID = "NeuralCoreTestsAAAAAAAA"
API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)  # length, key, version, correlation, no client id

# A broker that died is noticed after a second, and taken back as soon; groups start at once and may have short
# sessions; one partition of each internal topic is enough.
QUICK = {
    "broker.session.timeout.ms": "1000",
    "broker.heartbeat.interval.ms": "200",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    "group.consumer.min.session.timeout.ms": "500",
    "group.consumer.session.timeout.ms": "3000",
    "group.consumer.min.heartbeat.interval.ms": "200",
    "group.consumer.heartbeat.interval.ms": "200",
    "group.share.min.session.timeout.ms": "500",
    "group.share.session.timeout.ms": "3000",
    "group.share.min.heartbeat.interval.ms": "200",
    "group.share.heartbeat.interval.ms": "200",
    "group.share.min.record.lock.duration.ms": "1000",
    "log.cleaner.dedupe.buffer.size": "2097152",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.num.partitions": "1",
}
INTERNAL = ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")
IN_SYNC = ("min.insync.replicas", "transaction.state.log.min.isr", "share.coordinator.state.topic.min.isr")
MEMORY = ("-Xms256m", "-Xmx512m")


class KafkaServer(ServerProcess):
    """Broker and controller in one, on free ports of the loopback.

    ``host`` is another address of this machine, for clients. ``quorum`` are the controllers' ports by node, all brokers
    the same. ``advertised`` is the port that clients are sent to, a proxy's. ``users``, passwords by name, has clients
    log in by SASL/PLAIN; ``certificates`` makes it TLS. Brokers talk to each other without either.
    """

    def __init__(
        self,
        folder: Path,
        *,
        node: int = 1,
        host: str = HOST,
        quorum: Mapping[int, int] | None = None,
        advertised: int | None = None,
        users: Mapping[str, str] | None = None,
        certificates: Certificates | None = None,
        options: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"kafka-{node}", folder, env=env, patience=60.0)
        self.node = node
        self.host = host
        self.port = free_port()
        self.advertised = advertised
        self.users = dict(users or {})
        self.certificates = certificates
        self.options = dict(options or {})
        self.quorum = dict(quorum or {node: free_port()})
        self._between = free_port()

    @property
    def bootstrap(self) -> str:
        return f"{self.host}:{self.advertised or self.port}"

    def command(self) -> list[str]:
        configuration = self.folder / "server.properties"
        lines = [f"{key}={value}" for key, value in self._settings().items()]
        configuration.write_text("\n".join([*lines, ""]), encoding="utf-8")
        serve = [*_java(*MEMORY), "kafka.Kafka", str(configuration)]
        if (self.folder / "data" / "meta.properties").exists():
            return serve
        form = [*_java(), "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(configuration)]
        return ["sh", "-c", f"{shlex.join(form)} && exec {shlex.join(serve)}"]  # by itself, so that three do it at once

    def answers(self) -> bool:
        """Whether it handles requests: it listens some time before."""
        with contextlib.suppress(OSError), socket.create_connection((HOST, self._between), timeout=1.0) as connection:
            connection.sendall(API_VERSIONS)
            answer = connection.recv(10)
            return len(answer) == 10 and struct.unpack(">iih", answer)[1:] == (1, 0)
        return False

    def _settings(self) -> dict[str, str]:
        size = len(self.quorum)
        copies = {f"{topic}.replication.factor": str(size) for topic in INTERNAL}
        in_sync = dict.fromkeys(IN_SYNC, str(size // 2 + 1))
        return {
            "process.roles": "broker,controller",
            "node.id": str(self.node),
            "controller.quorum.voters": ",".join(f"{node}@{HOST}:{port}" for node, port in self.quorum.items()),
            "log.dirs": str(self.folder / "data"),
            "auto.create.topics.enable": "false",
            "default.replication.factor": str(size),
            **copies,
            **in_sync,
            **QUICK,
            **self._listeners(),
            **self._security(),
            **self.options,
        }

    def _listeners(self) -> dict[str, str]:
        outside = ("SASL_" if self.users else "") + ("SSL" if self.certificates else "PLAINTEXT")
        between, control = f"BROKER://{HOST}:{self._between}", f"CONTROLLER://{HOST}:{self.quorum[self.node]}"
        return {
            "listeners": f"CLIENT://{self.host}:{self.port},{between},{control}",
            "advertised.listeners": f"CLIENT://{self.bootstrap},{between}",
            "listener.security.protocol.map": f"CLIENT:{outside},BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "BROKER",
            "controller.listener.names": "CONTROLLER",
        }

    def _security(self) -> dict[str, str]:
        settings = {}
        prefix = "listener.name.client."
        if self.users:
            login = " ".join(f'user_{name}="{password}"' for name, password in self.users.items())
            module = "org.apache.kafka.common.security.plain.PlainLoginModule"
            settings[f"{prefix}sasl.enabled.mechanisms"] = "PLAIN"
            settings[f"{prefix}plain.sasl.jaas.config"] = f"{module} required {login};"
        if self.certificates:
            settings[f"{prefix}ssl.keystore.type"] = settings[f"{prefix}ssl.truststore.type"] = "PEM"
            settings[f"{prefix}ssl.keystore.location"] = str(self.certificates.server_chain)
            settings[f"{prefix}ssl.truststore.location"] = str(self.certificates.ca)
            settings[f"{prefix}ssl.client.auth"] = "requested"
        return settings


def libraries() -> Path:
    found = find("kafka")
    if found is None:
        raise FileNotFoundError("Kafka, or java, is not here: make servers")
    return found


def _java(*options: str) -> list[str]:
    archive = libraries().with_name("classes.jsa")
    quicker = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-XX:SharedArchiveFile={archive}", "-Xshare:auto"]
    return ["java", *quicker, "-Dlog4j2.level=INFO", *options, "-cp", f"{libraries()}/*"]
