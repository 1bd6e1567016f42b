"""Buses on one store, each as if it were a process of its own, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.transport import StoreStats
from neuralcore.testing.bus import bus_in
from neuralcore.testing.memory import MemoryStore, MemoryTransport, Moment


class Relay(MemoryTransport):
    """A client whose commits and fetches a test can break, delay or watch."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.commits: list[tuple[int, int]] = []
        """Publishes and settlements of each."""
        self.settled: list[tuple[str, str]] = []
        """Outcome and id, in order."""
        self.refuse: Exception | None = None
        """Raised by every commit, nothing done."""
        self.lose_answer = False
        """Commits are done, and then said to have failed."""
        self.gate = asyncio.Event()
        self.gate.set()

    async def commit(self, publishes: Any, settlements: Any = ()) -> Any:
        await self.gate.wait()
        if self.refuse is not None:
            raise self.refuse
        self.commits.append((len(publishes), len(settlements)))
        self.settled += [(s.outcome.value, s.delivery.envelope.id) for s in settlements]
        result = await super().commit(publishes, settlements)
        if self.lose_answer:
            raise ConnectionResetError("the answer was lost")
        return result


class Town:
    """What a test needs of several processes on one store."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self._buses: list[MessageBus] = []

    @property
    def loop(self) -> Any:
        return asyncio.get_running_loop()

    async def bus(self, transport: MemoryTransport | None = None, **options: Any) -> MessageBus:
        bus = bus_in(self.loop, transport or MemoryTransport(self.store), **options)
        await bus.start()
        self._buses.append(bus)
        return bus

    async def close(self) -> None:
        for bus in self._buses:
            await bus.close(drain=False)

    def now(self) -> Moment:
        return Moment(self.loop.clock.monotonic_ns(), self.loop.clock.time_ns())

    def stats(self, channel: str = "jobs") -> Any:
        return self.store.stats(self.now()).get(channel, StoreStats())

    def browse(self, channel: str) -> Any:
        return self.store.browse(channel, "beginning", 10_000, self.now()).envelopes

    async def eventually(self, condition: Any, seconds: float = 600.0) -> None:
        """Wait, in virtual time, until it holds."""
        end = self.loop.time() + seconds
        while not condition():
            assert self.loop.time() < end, "it never came true"
            await asyncio.sleep(0.01)


@pytest.fixture
def town() -> Town:
    return Town()


@pytest.fixture
def relay_on() -> type[Relay]:
    return Relay
