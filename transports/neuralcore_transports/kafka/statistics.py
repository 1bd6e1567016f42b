"""What the client library says of its clients, as the bus's metrics.

Its names and units: STATISTICS.md of librdkafka.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

import msgspec

__all__ = ["Statistics"]


class _Times(msgspec.Struct):
    p99: int = 0


class _Broker(msgspec.Struct):
    nodeid: int = -1
    state: str = ""
    txretries: int = 0
    req_timeouts: int = 0
    connects: int = 0
    disconnects: int = 0
    rtt: _Times = msgspec.field(default_factory=_Times)
    throttle: _Times = msgspec.field(default_factory=_Times)


class _Partition(msgspec.Struct):
    fetchq_cnt: int = 0


class _Topic(msgspec.Struct):
    partitions: dict[str, _Partition] = {}


class _Client(msgspec.Struct):
    tx: int = 0
    tx_bytes: int = 0
    rx: int = 0
    rx_bytes: int = 0
    msg_cnt: int = 0
    msg_size: int = 0
    brokers: dict[str, _Broker] = {}
    topics: dict[str, _Topic] = {}


_decode: Final = msgspec.json.Decoder(_Client).decode


def _worst(times: Iterable[_Times]) -> int:
    return max((each.p99 for each in times), default=0)


_COUNTERS: Final[dict[str, Callable[[_Client], int]]] = {
    "requests_sent": lambda told: told.tx,
    "bytes_sent": lambda told: told.tx_bytes,
    "responses_received": lambda told: told.rx,
    "bytes_received": lambda told: told.rx_bytes,
    "requests_retried": lambda told: sum(each.txretries for each in told.brokers.values()),
    "requests_timed_out": lambda told: sum(each.req_timeouts for each in told.brokers.values()),
    "connects": lambda told: sum(each.connects for each in told.brokers.values()),
    "disconnects": lambda told: sum(each.disconnects for each in told.brokers.values()),
}
_GAUGES: Final[dict[str, tuple[Callable[[Iterable[float]], float], Callable[[_Client], float]]]] = {
    "messages_to_send": (sum, lambda told: told.msg_cnt),
    "bytes_to_send": (sum, lambda told: told.msg_size),
    "messages_fetched": (
        sum,
        lambda told: sum(part.fetchq_cnt for topic in told.topics.values() for part in topic.partitions.values()),
    ),
    "brokers_up": (
        max,
        lambda told: sum(each.nodeid >= 0 and each.state == "UP" for each in told.brokers.values()),
    ),
    "round_trip_p99_seconds": (max, lambda told: _worst(each.rtt for each in told.brokers.values()) / 1e6),
    "throttled_p99_seconds": (max, lambda told: _worst(each.throttle for each in told.brokers.values()) / 1e3),
}
"""Of all clients together: how, and of each."""


class Statistics:
    """Of all clients of one transport; each tells its own in some thread."""

    def __init__(self, count: Callable[[str, int], None], gauge: Callable[[str, float], None], interval: float) -> None:
        """``interval``: seconds between what one client tells; one that is silent for longer has ended."""
        self._count = count
        self._gauge = gauge
        self._kept = 3 * interval
        self._lock = threading.Lock()
        self._clients: dict[object, tuple[float, _Client]] = {}

    def of_a_client(self) -> Callable[[str], None]:
        """What hears the JSON of one."""
        return partial(self._told, object())

    def _told(self, client: object, text: str) -> None:
        told, now = _decode(text), time.monotonic()
        with self._lock:
            _, before = self._clients.get(client, (now, _Client()))
            self._clients[client] = now, told
            for other, (when, _) in list(self._clients.items()):
                if now - when > self._kept:
                    del self._clients[other]
            there = [each for _, each in self._clients.values()]
        for name, count in _COUNTERS.items():
            more = count(told) - count(before)
            if more > 0:  # a broker's own go with the broker
                self._count(name, more)
        for name, (together, gauge) in _GAUGES.items():
            self._gauge(name, together(map(gauge, there)))
