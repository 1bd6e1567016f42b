"""The client library's objects, as this transport wants them: made in one place, with one way to log and to fail."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from neuralcore.messaging.errors import TransportError
from neuralcore.messaging.forking import NoFork
from neuralcore_transports.kafka.options import KafkaOptions
from neuralcore_transports.kafka.statistics import Statistics
from neuralcore_transports.kafka.topics import Topics

__all__ = ["Clients", "log"]

log = logging.getLogger("neuralcore.kafka")
_silent = logging.getLogger("neuralcore.kafka.probe")
_silent.disabled = True

_FETCH_MS: Final = 100
"""How long a broker may wait for messages: what was assigned or resumed meanwhile is asked for only after that."""
_POLL_MS: Final = 300_000
_BUFFER_KB: Final = 16_384
"""Of messages that the library has fetched for one consumer and that nobody has taken."""

_SENDING: Final[Mapping[str, Any]] = {
    "acks": "all",
    "enable.idempotence": True,
    "linger.ms": 0,
    "queue.buffering.max.messages": 100_000,
    "partitioner": "murmur2_random",
    "message.max.bytes": 20_000_000,
}


class Clients:
    """Makes them. They do not survive a fork, and are not made while somebody forks."""

    def __init__(
        self, options: KafkaOptions, name: str, told: Callable[[KafkaError], None], statistics: Statistics
    ) -> None:
        """``name``: what brokers call this client. ``told`` hears from any thread what is wrong with connections."""
        self._options = options
        self._apart = Topics(options.prefix).group(f"{name}.reader")
        """A group that nobody joins: the library wants a name for one."""
        self._statistics = statistics
        self._name = name
        self._told = told
        self._gate = NoFork()

    def producer(self) -> Producer:
        made: Producer = self._make(
            Producer, {**_SENDING, **self._lasting(), "message.timeout.ms": _ms(self._options.patience)}
        )
        return made

    def transactional(self, name: str) -> Producer:
        """One at a time of each name. What a dead process has left open holds up the readers of its partitions for the
        lease, as its messages do.
        """
        lease = _ms(self._options.lease)
        own = {**_SENDING, "transactional.id": name, "transaction.timeout.ms": lease, "message.timeout.ms": lease}
        made: Producer = self._make(Producer, own)
        return made

    def member(self, group: str, **callbacks: Any) -> Consumer:
        """Of a group. ``callbacks``: ``on_commit``."""
        options = self._options
        settings = {
            **self._reading(group),
            **self._lasting(),
            "enable.partition.eof": True,
            "session.timeout.ms": _ms(options.lease),
            "max.poll.interval.ms": max(_POLL_MS, 2 * _ms(options.lease)),
            "heartbeat.interval.ms": max(100, _ms(options.lease) // 4),
            "partition.assignment.strategy": "cooperative-sticky",
            **callbacks,
        }
        if options.instance is not None:
            settings["group.instance.id"] = f"{options.instance}.{group}"
        made: Consumer = self._make(Consumer, settings)
        return made

    def reader(self) -> Consumer:
        """Of partitions that are given to it; it belongs to no group."""
        made: Consumer = self._make(Consumer, {**self._reading(self._apart), **self._lasting()})
        return made

    def browser(self) -> Consumer:
        """A reader that says where a partition ends: what is last may be a transaction's mark, which nobody gets."""
        made: Consumer = self._make(Consumer, {**self._reading(self._apart), "enable.partition.eof": True})
        return made

    def probe(self) -> Consumer:
        """Only asks whether a broker is there; what is wrong with connections, others tell."""
        made: Consumer = self._make(Consumer, self._reading(self._apart), silent=True)
        return made

    def onlooker(self, group: str) -> Consumer:
        """Asks what a group has committed, and does not join it."""
        made: Consumer = self._make(Consumer, self._reading(group))
        return made

    def admin(self) -> AdminClient:
        made: AdminClient = self._make(AdminClient, {"socket.timeout.ms": _ms(self._options.timeout)})
        return made

    def _reading(self, group: str) -> dict[str, Any]:
        return {
            "group.id": group,
            "session.timeout.ms": 6000,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "queued.max.messages.kbytes": _BUFFER_KB,
            "fetch.wait.max.ms": _FETCH_MS,
            "fetch.error.backoff.ms": 50,
            "fetch.queue.backoff.ms": 10,
        }

    def _lasting(self) -> dict[str, Any]:
        """For those that are polled all their life: what the others told is kept until somebody takes it."""
        settings = {"socket.timeout.ms": _ms(self._options.answering)}
        if not self._options.statistics:
            return settings
        return {
            **settings,
            "statistics.interval.ms": _ms(self._options.statistics),
            "stats_cb": self._statistics.of_a_client(),
        }

    def _make(self, kind: Callable[..., Any], own: dict[str, Any], *, silent: bool = False) -> Any:
        """Raises TransportError for settings that the library does not take."""
        options = self._options
        settings: dict[str, Any] = {
            "client.id": self._name,
            "socket.keepalive.enable": True,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1000,
            "topic.metadata.refresh.interval.ms": 30_000,
            "topic.metadata.propagation.max.ms": 5_000,
            **own,
            **options.settings,
            "bootstrap.servers": ",".join(options.hosts),
            "error_cb": _nothing if silent else self._told,
        }
        if options.username is not None:
            settings |= {"sasl.username": options.username, "sasl.password": options.password or ""}
        try:
            with self._gate:
                return kind(settings, logger=_silent if silent else log)
        except KafkaException as error:
            raise TransportError(f"kafka:// was given a setting that does not work: {error.args[0].str()}") from error


def _nothing(error: KafkaError) -> None: ...


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
