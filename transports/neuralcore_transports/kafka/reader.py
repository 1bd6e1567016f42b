"""Reads partitions that are given to it, for what is no group's: the registry, replies, broadcasts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
from functools import partial

from confluent_kafka import Consumer, KafkaException, TopicPartition

from neuralcore.messaging.errors import Unavailable
from neuralcore_transports.kafka.errors import translated
from neuralcore_transports.kafka.poller import Call, Flow, Poller
from neuralcore_transports.kafka.silence import Silence

__all__ = ["Reader"]


class Reader:
    """One thread and one consumer for all of them. ``add`` and ``remove`` block."""

    poller: Poller

    def __init__(
        self,
        make: Callable[[], Consumer],
        call: Call,
        *,
        silence: Silence,
        prefetch: int,
        timeout: float,
        where: str,
        name: str,
    ) -> None:
        self._make = make
        self._call = call
        self._silence = silence
        self._prefetch = prefetch
        self._timeout = timeout
        self._where = where
        self._name = name
        self._known: dict[str, int] = {}
        """How many partitions of each topic the client has heard of."""
        self._running = False

    def start(self) -> None:
        """Raises TransportError."""
        self.poller = Poller(
            self._make,
            self._call,
            prefetch=self._prefetch,
            name=self._name,
            silence=self._silence,
            replaced=self._begin_anew,
        )
        self.poller.start()
        self._running = True

    def stop(self) -> None:
        if self._running:
            self.poller.stop(self._timeout)

    @property
    def client(self) -> Consumer:
        """For the thread."""
        return self.poller.client

    def _begin_anew(self) -> None:
        """Another client has taken the last one's place."""
        self._known.clear()
        self.poller.read_on()

    def add(self, flow: Flow, offset: int) -> None:
        """Raises Unavailable."""
        self._ask(partial(self._add, flow, offset))

    def _add(self, flow: Flow, offset: int) -> None:
        if flow.partition >= self._known.get(flow.topic, 0):  # else a new one's leader is looked for much later
            found = self.client.list_topics(flow.topic, self._timeout).topics[flow.topic]
            self._known[flow.topic] = len(found.partitions)
        self.client.incremental_assign([flow.at(offset)])
        self.poller.add(flow, offset)

    def remove(self, flow: Flow) -> None:
        self._ask(partial(self._remove, flow))

    def _remove(self, flow: Flow) -> None:
        if self.poller.remove(*flow.key) is not None:
            self._known.pop(flow.topic, None)
            self.client.incremental_unassign([TopicPartition(*flow.key)])

    def _ask(self, what: Callable[[], None]) -> None:
        try:
            self.poller.ask(what, self._timeout)
        except KafkaException as error:
            raise translated(error, self._where) from error
        except futures.TimeoutError as error:
            raise Unavailable("kafka", f"{self._where}: the reader does not answer") from error
