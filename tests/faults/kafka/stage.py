"""One cluster, perhaps behind proxies, a prefix of its own in it, and what the brokers say."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from neuralcore_transports.kafka.window import Window
from tests.faults import plan
from tests.faults.processes import Worker
from tests.faults.stage import Stage
from tests.servers.kafka_cluster import KafkaCluster
from tests.servers.ports import LateError, until

if TYPE_CHECKING:
    from confluent_kafka import Consumer, TopicPartition

__all__ = ["LEASE", "QUERY", "KafkaStage"]

LEASE = 2.0
QUERY = f"lease={LEASE:g}&handover=1&upkeep=0.5&partitions=4&timeout=5"
PATIENCE = 10.0

_numbers = itertools.count()


class KafkaStage(Stage):
    transport: ClassVar[str] = "tests.faults.kafka.transport"
    insist: ClassVar[bool] = True

    def __init__(
        self,
        folder: Path,
        kafka: KafkaCluster,
        *,
        query: str = QUERY,
        env: Mapping[str, str] | None = None,
        seed: int = plan.SEED,
    ) -> None:
        super().__init__(folder, query=query, env=env, seed=seed)
        self.kafka = kafka
        self.prefix = f"faults{os.getpid()}-{next(_numbers)}"

    @property
    def url(self) -> str:
        return f"kafka://{self.kafka.bootstrap}/{self.prefix}?{self.query}"

    def consumers(self, count: int, **how: Any) -> list[Worker]:
        """Returns once they all listen: they join together."""
        workers = [self.start("consume", **how) for _ in range(count)]
        for worker in workers:
            worker.expect("ready")
        return workers

    # What the brokers have

    def topic(self, channel: str = "work") -> str:
        return f"{self.prefix}.{channel}"

    def stored(self, channel: str = "work") -> Counter[str]:
        """How many records there are of each id."""
        found: Counter[str] = Counter()
        with self._client() as client:
            ends = {each.partition: bounds for each, bounds in self._bounds(client, channel)}
            for partition, (low, high) in ends.items():
                found.update(_ids(client, self.topic(channel), partition, low, high))
        return found

    def left(self, channel: str = "work", group: str = "g") -> int:
        """Messages that a group has not settled, as far as the brokers know."""
        with self._client(group) as client:
            return sum(window.unsettled(high) for _, window, _, high in self._windows(client, channel))

    def debris(self, channel: str = "work", *, kept: bool = False, timeout: float = PATIENCE) -> list[str]:
        """What should be gone once everything is settled; given a moment, as commits and trimming are not awaited by a
        journal. ``kept``: the messages themselves stay.
        """
        found: list[str] = []

        def clean() -> bool:
            found[:] = self._debris(channel, kept)
            return not found

        try:
            until(clean, timeout=timeout, what="the brokers to be tidy", pause=0.1)
        except LateError:
            return found
        return []

    def _debris(self, channel: str, kept: bool) -> list[str]:
        found = []
        with self._client("g") as client:
            for partition, window, low, high in self._windows(client, channel):
                name = f"{self.topic(channel)}:{partition}"
                if window.unsettled(high):
                    found.append(f"{name} has {window.unsettled(high)} unsettled of {low}..{high} at {window.position}")
                if window._known:
                    found.append(f"{name} remembers attempts at {sorted(window._known)}")
                if not kept and low < high:
                    found.append(f"{name} keeps {low}..{high}")
        return found

    def _windows(self, client: Consumer, channel: str) -> Iterator[tuple[int, Window, int, int]]:
        """Partition, what is settled of it, and its bounds."""
        bounds = self._bounds(client, channel)
        for committed, (_, (low, high)) in zip(
            client.committed([at for at, _ in bounds], PATIENCE), bounds, strict=True
        ):
            offset = committed.offset if committed.offset >= 0 else low
            yield committed.partition, Window.restored(offset, committed.metadata), low, high

    def _bounds(self, client: Consumer, channel: str) -> list[tuple[TopicPartition, tuple[int, int]]]:
        from confluent_kafka import TopicPartition

        topic = self.topic(channel)
        places = [TopicPartition(topic, each) for each in client.list_topics(topic, PATIENCE).topics[topic].partitions]
        return [(place, client.get_watermark_offsets(place, PATIENCE)) for place in places]

    @contextmanager
    def _client(self, group: str = "spectator") -> Iterator[Consumer]:
        """One that never joins."""
        from confluent_kafka import Consumer

        settings = self.kafka.config(
            group_id=f"{self.prefix}.{group}", enable_auto_commit=False, enable_partition_eof=True
        )
        client = Consumer(settings)
        try:
            yield client
        finally:
            client.close()


def _ids(client: Consumer, topic: str, partition: int, low: int, high: int) -> Iterator[str]:
    from confluent_kafka import KafkaError, TopicPartition

    client.assign([TopicPartition(topic, partition, low)])
    while low < high:
        record = client.poll(PATIENCE)
        assert record is not None, f"{topic}:{partition} was silent at {low} of {high}"
        error = record.error()
        if error is None:
            low = record.offset() + 1
            yield dict(record.headers() or ())["ce_id"].decode()
        elif error.code() == KafkaError._PARTITION_EOF:
            return
    client.unassign()
