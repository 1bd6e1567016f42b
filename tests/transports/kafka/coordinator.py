"""The broker that keeps a group's commits, and answers when it is told to."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import KafkaError, TopicPartition

from neuralcore.messaging.transport import Settlement
from neuralcore_transports.kafka import committing as module
from neuralcore_transports.kafka.committing import Committing
from neuralcore_transports.kafka.partition import Partition
from neuralcore_transports.kafka.together import Job
from tests.transports.kafka.fakes import Hands

__all__ = ["BUSY", "Broker", "numbers", "serving", "settled", "turns"]

BUSY = KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS)


@dataclass
class Answer:
    """The client library's can only be made by itself, with its error."""

    topic: str
    partition: int
    offset: int
    metadata: str
    error: KafkaError | None = None


class Broker:
    """Keeps what is sent; answers when it is told to."""

    def __init__(self) -> None:
        self.sent: list[list[TopicPartition]] = []
        self.more: list[Partition] = []
        self.settled: list[Settlement] = []
        self.transactions: list[tuple[list[Job], list[TopicPartition]]] = []
        self.ended: asyncio.Future[None]
        self.counted: Counter[str] = Counter()
        self.committing = Committing(
            "g",
            self.sent.append,
            self.transact,
            more=self.more.append,
            settled=self.settled.extend,
            count=lambda name: self.counted.update([name]),
        )

    async def transact(self, jobs: list[Job], offsets: list[TopicPartition]) -> None:
        self.transactions.append((jobs, offsets))
        self.ended = asyncio.get_running_loop().create_future()
        await self.ended

    async def answer(self, error: KafkaError | None = None, partitions: Any = ()) -> None:
        self.committing.told(error, partitions)
        await turns()

    def told(self, errors: Mapping[tuple[str, int], KafkaError]) -> list[Answer]:
        """What the library says of the last one."""
        return [
            Answer(each.topic, each.partition, each.offset, each.metadata, errors.get((each.topic, each.partition)))
            for each in self.sent[-1]
        ]

    def offsets(self, n: int = -1) -> dict[tuple[str, int], int]:
        return {(each.topic, each.partition): each.offset for each in self.sent[n]}


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """What failed is tried again soon."""
    monkeypatch.setattr(module, "_AGAIN", 0.01)
    made = Broker()
    yield made
    made.committing.close()


numbers: Iterator[int] = iter(range(10**6))


def settled(count: int) -> Hands:
    hands = Hands(number=next(numbers))
    hands.publish(*(str(n) for n in range(count)))
    hands.ack(*hands.take(count))
    return hands
