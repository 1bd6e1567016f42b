"""The store driven by hand: its time is a number, its clients are names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.transport import (
    CommitResult,
    Delivery,
    Demand,
    Envelope,
    Interest,
    Outcome,
    PublishStatus,
    Settlement,
    SettleStatus,
)
from neuralcore.testing.memory import MemoryStore, Moment

SECOND = 10**9
START = Moment(1_000 * SECOND, 1_750_000_000 * SECOND)


class Member:
    """One reader of one client."""

    def __init__(self, bench: Bench, client: str, group: str | None, *interests: Interest) -> None:
        self._bench = bench
        self.wakes = 0
        self.reader = bench.store.reader(bench.owner(client), group, self._woken)
        self.update(*interests)

    def _woken(self) -> None:
        self.wakes += 1

    def update(self, *interests: Interest) -> None:
        self._bench.store.update(self.reader, interests, self._bench.now)

    def fetch(self, limit: int = 10_000, *, interest: int = 1, more_urgent_than: int | None = None) -> list[Delivery]:
        return self.fetch_all({interest: Demand(limit, more_urgent_than)})

    def fetch_all(self, demand: dict[int, Demand]) -> list[Delivery]:
        return self._bench.store.fetch(self.reader, demand, self._bench.now)

    def bodies(self, limit: int = 10_000, **options: Any) -> list[bytes]:
        return [delivery.envelope.body for delivery in self.fetch(limit, **options)]

    def seek(self, position: Any, interest: int = 1) -> None:
        self._bench.store.seek(self.reader, interest, position, self._bench.now)

    def close(self) -> None:
        self._bench.store.close_reader(self.reader, self._bench.now)


class Bench:
    def __init__(self, **options: float) -> None:
        self.store = MemoryStore(**options)  # type: ignore[arg-type]
        self.now = START
        self._owners: dict[str, Any] = {}
        self._ids = 0

    def owner(self, client: str) -> Any:
        if client not in self._owners:
            self._owners[client] = self.store.connect(client)
        return self._owners[client]

    def pass_time(self, seconds: float) -> None:
        step = round(seconds * SECOND)
        self.now = Moment(self.now.mono + step, self.now.wall + step)
        self.store.advance(self.now)

    def jump_wall(self, seconds: float) -> None:
        self.now = Moment(self.now.mono, self.now.wall + round(seconds * SECOND))

    def next_event(self) -> float | None:
        """Seconds from now."""
        at = self.store.next_event(self.now)
        return None if at is None else (at - self.now.mono) / SECOND

    def join(self, *patterns: str, group: str | None = "g", client: str = "A", **options: Any) -> Member:
        interests = [Interest(id=i, pattern=p, **options) for i, p in enumerate(patterns, 1)]
        return Member(self, client, group, *interests)

    def declare(self, name: str, **fields: Any) -> None:
        self.store.declare(ChannelConfig(name, **fields), self.now)

    def envelope(self, channel: str = "jobs", body: bytes = b"", **fields: Any) -> Envelope:
        self._ids += 1
        fields.setdefault("id", f"m{self._ids}")
        return Envelope(channel=channel, body=body or fields["id"].encode(), **fields)

    def publish(self, channel: str = "jobs", body: bytes = b"", **fields: Any) -> PublishStatus:
        return self.store.publish(self.envelope(channel, body, **fields), self.now)

    def commit(self, publishes: list[Envelope], settlements: list[Settlement]) -> CommitResult:
        return self.store.commit(publishes, settlements, self.now)

    def settle(self, outcome: Outcome, *deliveries: Delivery, **fields: Any) -> list[SettleStatus]:
        return list(self.commit([], [Settlement(d, outcome, **fields) for d in deliveries]).settled)

    def ack(self, *deliveries: Delivery) -> list[SettleStatus]:
        return self.settle(Outcome.ACK, *deliveries)

    def nack(self, *deliveries: Delivery, delay: float = 0.0, pass_key: bool = False) -> list[SettleStatus]:
        return self.settle(Outcome.NACK, *deliveries, delay_ns=round(delay * SECOND), pass_key=pass_key)

    def release(self, *deliveries: Delivery) -> list[SettleStatus]:
        return self.settle(Outcome.RELEASE, *deliveries)

    def attempt(self, *deliveries: Delivery) -> list[SettleStatus]:
        return self.settle(Outcome.ATTEMPT, *deliveries)

    def die(self, client: str) -> None:
        self.store.silence(self.owner(client), self.now)

    def come_back(self, client: str) -> None:
        self.store.resume(self.owner(client), self.now)

    def leave(self, client: str) -> None:
        self.store.disconnect(self.owner(client), self.now)

    def stats(self, channel: str = "jobs") -> Any:
        return self.store.stats(self.now)[channel]

    def browse(self, channel: str = "jobs", start: Any = "beginning", limit: int = 1000) -> list[bytes]:
        return [e.body for e in self.store.browse(channel, start, limit, self.now).envelopes]


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def make_bench() -> Callable[..., Bench]:
    return Bench
