"""Harnesses in virtual time: the transports that live in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from neuralcore._core import Message
from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.errors import TransportError
from neuralcore.messaging.transport import Transport
from neuralcore.testing.bus import bus_in
from neuralcore.testing.conformance.errand import errand
from neuralcore.testing.conformance.harness import Client, Harness
from neuralcore.testing.loop import VirtualLoop, run
from neuralcore.testing.memory import MemoryStore, MemoryTransport

__all__ = ["MemoryHarness", "NativeHarness", "VirtualHarness"]

T = TypeVar("T")

_GLANCE = 0.01
"""Seconds between two looks at something that tells nobody."""


class VirtualHarness(Harness):
    """For transports that take their time from the runtime's clock and use neither threads nor sockets."""

    patience = 100.0
    grace = 30.0
    slack = 0.005
    turns = 100_000
    """Of the loop while time stands still, after which a check counts as caught in a circle.

    The busiest takes 600 turns, and 20,000 where a transport fetches one message at a time.
    """

    def __init__(self, *, seed: int | None = None) -> None:
        """With a seed, what is ready at once runs in a shuffled order that the seed repeats."""
        self.seed = seed

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return run(main(), seed=self.seed, turns=self.turns)

    def bus(self, **options: Any) -> MessageBus:
        return bus_in(self.loop, self.transport(), **options)

    @property
    def loop(self) -> VirtualLoop:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        return loop

    async def soon(self) -> None:
        await self.loop.idle()

    def wall(self) -> float:
        return self.loop.clock.time_ns() / 1e9

    async def advance(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class NativeHarness(VirtualHarness):
    name = "native"

    def transport(self) -> str:
        return "native://"


class MemoryHarness(VirtualHarness):
    """A store for each check. Killing a client silences it: its leases run out."""

    name = "memory"
    turns = 10_000

    def __init__(
        self,
        *,
        seed: int | None = None,
        wrap: Callable[[MemoryTransport], Transport] = lambda transport: transport,
    ) -> None:
        """``wrap`` puts something around every client, such as a fault of ``neuralcore.testing.broken``."""
        super().__init__(seed=seed)
        self._wrap = wrap
        self.store = MemoryStore()

    async def begin(self) -> None:
        self.store = MemoryStore()

    def transport(self) -> Transport:
        return self._wrap(MemoryTransport(self.store))

    async def spawn(self, channel: str, group: str, *, concurrency: int = 1) -> Client:
        client = MemoryTransport(self.store)
        victim = _Victim(client, bus_in(self.loop, self._wrap(client), name="victim"))
        await victim.start(channel, group, concurrency)
        return victim

    async def publish_and_die(self, channel: str, count: int) -> None:
        client = MemoryTransport(self.store)
        bus = bus_in(self.loop, self._wrap(client), name="publisher")
        await bus.start()
        for n in range(count):
            await bus.publish(channel, n)
        await _die(client, bus)


async def _die(transport: MemoryTransport, bus: MessageBus) -> None:
    transport.kill()
    with suppress(TransportError):
        await bus.close(drain=False, timeout=0.1)


class _Victim(Client):
    def __init__(self, transport: MemoryTransport, bus: MessageBus) -> None:
        self._transport = transport
        self._bus = bus
        self._held: list[Message] = []
        self._changed = asyncio.Event()
        self._finish = asyncio.Event()
        self._dead = False

    async def start(self, channel: str, group: str, concurrency: int) -> None:
        await self._bus.start()
        subscription = self._bus.subscribe(channel, self._hold, group=group, concurrency=concurrency)
        await subscription.ready()

    async def _hold(self, message: Message) -> None:
        if await errand(self._bus, message):
            return
        self._held.append(message)
        self._changed.set()
        await self._finish.wait()

    async def holding(self, count: int) -> None:
        while len(self._held) < count:
            self._changed.clear()
            await self._changed.wait()

    async def kill(self) -> None:
        if not self._dead:
            self._dead = True
            await _die(self._transport, self._bus)

    async def pause(self) -> None:
        self._transport.freeze()

    async def resume(self) -> None:
        self._transport.thaw()

    async def lost(self, count: int) -> None:
        while sum(message.lease_lost for message in self._held) < count:  # noqa: ASYNC110 - a lost lease tells nobody
            await asyncio.sleep(_GLANCE)

    async def finish(self) -> None:
        self._finish.set()
