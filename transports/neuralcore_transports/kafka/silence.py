"""Notices a client that has lost all brokers, and will not find one again by itself.

A broker that its controller takes for dead, as after it stood still for a while, says for a moment that the cluster has
no brokers. The client library then lets go of all it knows, and does not always connect again (librdkafka 2.16: only
when nothing refers to the last of them any more does it go back to the addresses it was given). Nobody is told.

From an outage that is told by a second client: in an outage nobody answers that one either.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from confluent_kafka import KafkaException

from neuralcore_transports.kafka.clients import log

__all__ = ["Silence"]

_QUIET: Final = 5.0
"""Seconds without a word of any broker after which one is asked."""
_ANSWER: Final = 1.0
_FRESH: Final = 30.0
"""Seconds after which a second client that found nobody may have lost the brokers too."""
_TOPIC: Final = "__consumer_offsets"
"""Brokers may make what they are asked for; this one they make as it should be."""


class _Client(Protocol):
    def list_topics(self, topic: str, timeout: float, /) -> Any: ...


class Silence:
    """Of one client and those that take its place; for its thread."""

    def __init__(self, name: str, another: Callable[[], _Client], patience: float, *, quiet: float = _QUIET) -> None:
        """``another`` makes a client to compare it with. ``patience``: seconds that brokers answer that one and not
        this one, until its place is taken; more than the one or two that clients take to connect again.
        """
        self._name = name
        self._make = another
        self._patience = patience
        self._quiet = quiet
        self._look = time.monotonic() + quiet
        self._other: _Client | None = None
        self._made = 0.0
        self._since: float | None = None
        """When the other one was answered first."""

    def heard(self) -> None:
        """A broker has said something."""
        self._look = time.monotonic() + self._quiet
        self._other = self._since = None

    def lasts(self, client: _Client) -> bool:
        """Whether another client is to take its place. Blocks for up to two seconds while no broker answers. Raises
        TransportError.
        """
        now = time.monotonic()
        if now < self._look:
            return False
        self._look = now + _ANSWER
        if _is_answered(client):
            self.heard()
            return False
        if not self._others_are_answered(now):
            self._since = None
        elif self._since is None:
            self._since = now
        elif now - self._since >= self._patience:
            log.warning("%s has lost all brokers, another client takes its place", self._name)
            self.heard()
            return True
        self._look = time.monotonic() + min(_ANSWER, self._quiet)
        return False

    def _others_are_answered(self, now: float) -> bool:
        other = self._other  # whoever hears of a broker meanwhile needs no other one
        if other is None or (self._since is None and now - self._made > _FRESH):
            other = self._make()
            self._other, self._made = other, now
        return _is_answered(other)


def _is_answered(client: _Client) -> bool:
    try:
        client.list_topics(_TOPIC, _ANSWER)
    except KafkaException:
        return False
    return True
