"""The transport of a worker on Kafka."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from neuralcore_transports.kafka import KafkaTransport
from neuralcore_transports.kafka.clients import Clients
from neuralcore_transports.kafka.poller import Poller

__all__ = ["make"]


def make(url: str, *, thread: bool = True, strict: bool = False) -> KafkaTransport:
    """Without a ``thread`` of its own nothing is polled while the loop is blocked; ``strict`` takes whoever does not
    poll for a lease's time for dead, as Kafka does after five minutes.
    """
    if strict:
        _poll_within_a_lease()
    if not thread:
        _ask_the_loop_first()
    return KafkaTransport.from_url(url)


def _ask_the_loop_first() -> None:
    turn = Poller._turn

    def patient(self: Poller) -> None:
        answered = threading.Event()
        self._call(answered.set)
        while not answered.wait(0.1) and not self.stopping:
            pass
        turn(self)

    Poller._turn = patient  # type: ignore[method-assign]


def _poll_within_a_lease() -> None:
    made = Clients._make

    def strictly(self: Clients, kind: Callable[..., Any], own: dict[str, Any], **more: Any) -> Any:
        lease = own.get("session.timeout.ms")
        return made(self, kind, own if lease is None else {**own, "max.poll.interval.ms": lease}, **more)

    Clients._make = strictly  # type: ignore[method-assign]
