"""Harnesses in virtual time: the transports that live in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from neuralcore._core import Message
from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.errors import TransportError
from neuralcore.messaging.local import NativeTransport
from neuralcore.messaging.transport import Capabilities, Transport
from neuralcore.testing.bus import bus_in
from neuralcore.testing.conformance.harness import Client, Harness
from neuralcore.testing.loop import VirtualLoop, run
from neuralcore.testing.memory import MemoryStore, MemoryTransport

__all__ = ["MemoryHarness", "NativeHarness", "VirtualHarness"]

T = TypeVar("T")


class VirtualHarness(Harness):
    """For transports that take their time from the runtime's clock and use neither threads nor sockets."""

    patience = 100.0
    grace = 30.0
    slack = 0.005

    def __init__(self, *, seed: int | None = None) -> None:
        """With a seed, what is ready at once runs in a shuffled order that the seed repeats."""
        self.seed = seed

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return run(main(), seed=self.seed)

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

    def capabilities(self) -> Capabilities:
        return NativeTransport.capabilities


class MemoryHarness(VirtualHarness):
    """A store for each check. Killing a client silences it: its leases run out."""

    name = "memory"

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

    def capabilities(self) -> Capabilities:
        return self.transport().capabilities

    async def spawn(self, channel: str, group: str, *, concurrency: int = 1) -> Client:
        client = MemoryTransport(self.store)
        victim = _Victim(client, bus_in(self.loop, self._wrap(client), name="victim"))
        await victim.start(channel, group, concurrency)
        return victim


class _Victim(Client):
    def __init__(self, transport: MemoryTransport, bus: MessageBus) -> None:
        self._transport = transport
        self._bus = bus
        self._held = 0
        self._changed = asyncio.Event()
        self._dead = False

    async def start(self, channel: str, group: str, concurrency: int) -> None:
        await self._bus.start()
        subscription = self._bus.subscribe(channel, self._hold, group=group, concurrency=concurrency)
        await subscription.ready()

    async def _hold(self, message: Message) -> None:
        self._held += 1
        self._changed.set()
        await asyncio.Event().wait()

    async def holding(self, count: int) -> None:
        while self._held < count:
            self._changed.clear()
            await self._changed.wait()

    async def kill(self) -> None:
        if self._dead:
            return
        self._dead = True
        self._transport.kill()
        try:
            await self._bus.close(drain=False, timeout=0.1)
        except TransportError:
            """What it wanted to say at the end could not be said any more."""
