"""Notices a client that has lost all brokers, and will not find one again by itself.

A broker that its controller takes for dead, as after it stood still for a while, says for a moment that the cluster has
no brokers. The client library then lets go of all it knows, and does not always connect again (librdkafka 2.16: only
when nothing refers to the last of them any more does it go back to the addresses it was given). Nobody is told.
"""

from __future__ import annotations

import time
from typing import Any, Final, Protocol

from confluent_kafka import KafkaException

from neuralcore_transports.kafka.clients import log

__all__ = ["Silence"]

_QUIET: Final = 5.0
"""Seconds without a word of any broker after which one is asked."""
_ANSWER: Final = 1.0
_MOST: Final = 300.0
"""Seconds before yet another client is tried, in an outage."""


class _Client(Protocol):
    def list_topics(self, topic: str, timeout: float, /) -> Any: ...


class Silence:
    """Of one client and those that take its place; for its thread."""

    def __init__(self, name: str, topic: str, patience: float, *, quiet: float = _QUIET) -> None:
        """``topic``: one that is there. ``patience``: seconds that no broker answers, after ``quiet`` ones, until
        another client is to try; each time twice as many.
        """
        self._name = name
        self._topic = topic
        self._first = self._patience = patience
        self._quiet = quiet
        self._look = time.monotonic() + quiet
        self._since: float | None = None
        """When a broker was asked in vain first."""

    def heard(self) -> None:
        """A broker has said something."""
        self._look = time.monotonic() + self._quiet
        self._since = None
        self._patience = self._first

    def lasts(self, client: _Client) -> bool:
        """Whether another client is to take its place. Blocks for a second while no broker answers."""
        now = time.monotonic()
        if now < self._look:
            return False
        try:
            client.list_topics(self._topic, _ANSWER)
        except KafkaException as error:
            return self._unanswered(now, error)
        self.heard()
        return False

    def _unanswered(self, asked: float, error: KafkaException) -> bool:
        self._look = time.monotonic() + min(_ANSWER, self._quiet)
        if self._since is None:
            self._since = asked
        if asked - self._since < self._patience:
            return False
        log.warning(
            "%s has heard of no broker for %.0f s (%s), another client takes its place",
            self._name,
            asked - self._since + self._quiet,
            error.args[0].str(),
        )
        self._look = time.monotonic() + self._quiet
        self._since = None
        self._patience = min(2 * self._patience, _MOST)
        return True
