"""What a transport is opened with when no bus is there."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field

from neuralcore._core import Clock
from neuralcore.messaging.transport import Delivery

__all__ = ["BareRuntime"]


@dataclass
class BareRuntime:
    """Remembers the events that the transport raises."""

    clock: Clock
    bus_id: str = field(default_factory=lambda: secrets.token_hex(8))
    executor: Executor = field(default_factory=lambda: ThreadPoolExecutor(2))
    counters: Counter[str] = field(default_factory=Counter)
    gauges: dict[str, float] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)

    def count(self, name: str, amount: int = 1) -> None:
        self.counters[name] += amount

    def gauge(self, name: str, value: float) -> None:
        self.gauges[name] = value

    def lost(self, deliveries: Sequence[Delivery]) -> None:
        self.events.append(f"lost {len(deliveries)}")

    def revoking(self, deliveries: Sequence[Delivery], deadline_ns: int) -> None:
        self.events.append(f"revoking {len(deliveries)}")

    def reconnected(self) -> None:
        self.events.append("reconnected")

    def data_lost(self, channel: str, detail: str) -> None:
        self.events.append(f"data lost on {channel}: {detail}")

    def channels_changed(self) -> None:
        self.events.append("channels changed")
