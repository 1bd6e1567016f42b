"""What the bus gives a transport."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from neuralcore._core import Clock
from neuralcore.messaging.context import BusContext, log
from neuralcore.messaging.transport import Delivery

if TYPE_CHECKING:
    from neuralcore.messaging.remote.link import RemoteLink

__all__ = ["LinkRuntime"]


class LinkRuntime:
    """Its events come from any thread and are dealt with on the home loop."""

    def __init__(self, context: BusContext, link: RemoteLink) -> None:
        self._context = context
        self._link = link

    @property
    def clock(self) -> Clock:
        return self._context.clock

    @property
    def bus_id(self) -> str:
        return self._context.bus_id

    @property
    def executor(self) -> Executor:
        return self._context.executor

    def count(self, name: str, amount: int = 1) -> None:
        self._context.count(name, amount)

    def gauge(self, name: str, value: float) -> None:
        self._context.gauge(name, value)

    def lost(self, deliveries: Sequence[Delivery]) -> None:
        self._context.call_home(self._link.lost, list(deliveries))

    def revoking(self, deliveries: Sequence[Delivery], deadline_ns: int) -> None:
        self._context.call_home(self._link.revoking, list(deliveries))

    def reconnected(self) -> None:
        self._context.count("reconnects")

    def data_lost(self, channel: str, detail: str) -> None:
        self._context.count("data_lost")
        log.error("data was lost on %s: %s", channel, detail)

    def channels_changed(self) -> None:
        self._context.call_home(self._link.channels_changed)
