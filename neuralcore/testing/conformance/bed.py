"""What a check works with: names of its own, clients of the store, collectors, and waits that end."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

from neuralcore._core import Clock, Message
from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.errors import Unsupported
from neuralcore.messaging.registry import transport_for
from neuralcore.messaging.subscription import Subscription
from neuralcore.messaging.transport import Capabilities, GroupRef, Transport
from neuralcore.testing.conformance.harness import Client, Harness
from neuralcore.testing.conformance.promise import Broken, same
from neuralcore.testing.conformance.runtime import BareRuntime

__all__ = ["Bed", "Collector", "Gate"]

T = TypeVar("T")

_NEEDS = {"delay": "delay", "key": "keys", "priority": "priorities"}
"""Options of a publish, and the capability that each takes."""


class Bed:
    """One check's corner of the store. Everything it made is closed when it ends."""

    def __init__(self, harness: Harness, token: str) -> None:
        """``token``: a channel prefix that no other check and no earlier run uses."""
        self.harness = harness
        self.token = token
        self.capabilities: Capabilities = harness.capabilities()
        self._numbers = itertools.count(1)
        self._buses: list[MessageBus] = []
        self._clients: list[Client] = []
        self._groups: list[str] = []
        self._transports: list[tuple[Transport, BareRuntime]] = []

    async def __aenter__(self) -> Bed:
        await self.harness.begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for client in self._clients:
            await client.kill()
        for bus in self._buses:
            await self.within(bus.close(drain=False, timeout=1.0), "closing the bus")
        if self.harness.shared and not self.capabilities.in_process:
            await self._remove_groups()
        for transport, runtime in self._transports:
            await self.within(transport.close(), "closing the transport")
            runtime.executor.shutdown(wait=False)
        await self.harness.end()

    async def _remove_groups(self) -> None:
        transport = await self.transport()
        with suppress(Unsupported):
            for group in self._groups:
                await self.within(transport.remove(GroupRef(group)), f"removing group {group}")

    # Names

    def channel(self, name: str = "channel") -> str:
        return f"{self.token}.{name}-{next(self._numbers)}"

    def group(self, name: str = "group") -> str:
        made = f"{name}-{self.token.replace('.', '-')}-{next(self._numbers)}"
        self._groups.append(made)
        return made

    # Clients

    async def bus(self, **options: Any) -> MessageBus:
        """The bus; called again, one more client of the store, or in process the same bus."""
        if self.capabilities.in_process and self._buses and not options:
            return self._buses[0]
        return await self.fresh(**options)

    async def fresh(self, **options: Any) -> MessageBus:
        """A bus of its own."""
        bus = self.harness.bus(**options)
        self._buses.append(bus)
        await self.within(bus.start(), "starting the bus")
        return bus

    async def transport(self) -> Transport:
        """A client of the store without a bus, open."""
        made = transport_for(self.harness.transport())
        runtime = BareRuntime(getattr(asyncio.get_running_loop(), "clock", None) or Clock())
        await self.within(made.open(runtime), "opening the transport")
        self._transports.append((made, runtime))
        return made

    def events(self, transport: Transport) -> list[str]:
        """What this transport has told its runtime."""
        return next(runtime.events for known, runtime in self._transports if known is transport)

    async def spawn(self, channel: str, group: str, *, concurrency: int = 1) -> Client:
        client = await self.harness.spawn(channel, group, concurrency=concurrency)
        self._clients.append(client)
        return client

    async def subscribe(
        self, bus: MessageBus, pattern: str, handler: Callable[..., Any], **options: Any
    ) -> Subscription:
        """Ready when it returns; in a group of its own unless told otherwise."""
        subscription = bus.subscribe(pattern, handler, **self.placed(options))
        await self.within(subscription.ready(), f"the subscription to {pattern} getting ready")
        return subscription

    def placed(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options with a group, or broadcast where the transport has no groups, if neither was said."""
        if "group" in options or options.get("broadcast"):
            return options
        if self.capabilities.groups:
            return {"group": self.group(), **options}
        return {"broadcast": True, **options}

    def offered(self, **options: Any) -> dict[str, Any]:
        """Of these options of a publish, those that the transport declares."""
        return {name: value for name, value in options.items() if getattr(self.capabilities, _NEEDS[name])}

    def gate(self) -> Gate:
        return Gate(self)

    def collector(self, act: Callable[[Message], Awaitable[Any]] | None = None) -> Collector:
        return Collector(self, act)

    def narrow(self, remote: int, in_process: int) -> int:
        """A mailbox's capacity: in process it bounds publishers, elsewhere only how much is fetched in advance."""
        return in_process if self.capabilities.in_process else remote

    def prefetch(self, count: int) -> dict[str, Any]:
        """Options of a subscription that fetches no more than that in advance."""
        return {} if self.capabilities.in_process else {"capacity": count}

    # Time

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def quiet(self) -> None:
        await self.harness.quiet()

    async def soon(self) -> None:
        """Return when what can happen at this moment has happened; hardly any time passes."""
        await self.harness.soon()

    async def advance(self, seconds: float) -> None:
        await self.harness.advance(seconds)

    async def within(self, awaitable: Awaitable[T], what: str, *, beyond: float = 0.0) -> T:
        """Await it; one that is not done within the harness's patience (and ``beyond``) breaks the promise."""
        task = asyncio.ensure_future(awaitable)
        done, _ = await asyncio.wait({task}, timeout=self.harness.patience + beyond)
        if not done:
            task.cancel()
            await asyncio.wait({task}, timeout=self.harness.grace)
            raise Broken(f"{what} did not end within {self.harness.patience + beyond:g} s")
        return task.result()


class Gate:
    """Holds handlers until it is opened."""

    def __init__(self, bed: Bed) -> None:
        self._bed = bed
        self._opened = asyncio.Event()
        self._changed = asyncio.Event()
        self.inside = 0
        self.most = 0
        """The most that were ever held at once."""

    async def wait(self, message: Message | None = None) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self._changed.set()
        try:
            await self._opened.wait()
        finally:
            self.inside -= 1

    async def held(self, wanted: int) -> None:
        """Wait until that many are held."""
        await self._bed.within(self._reach(wanted), f"{wanted} handlers running at once")

    async def _reach(self, wanted: int) -> None:
        while self.inside < wanted:
            self._changed.clear()
            await self._changed.wait()

    def open(self) -> None:
        self._opened.set()


class Collector:
    """A handler that keeps what it gets, in order, and can be waited on."""

    def __init__(self, bed: Bed, act: Callable[[Message], Awaitable[Any]] | None) -> None:
        self._bed = bed
        self._act = act
        self._grown = asyncio.Event()
        self._others: list[Collector] = []
        self.messages: list[Message] = []
        self.times: list[float] = []

    async def handle(self, message: Message) -> Any:
        self._keep(message)
        return await self._act(message) if self._act is not None else None

    def _keep(self, message: Message) -> None:
        self.messages.append(message)
        self.times.append(self._bed.now)
        self._grown.set()
        for other in self._others:
            other._keep(message)

    def relay(self, other: Collector) -> None:
        """Let another collector see what this one got, and gets from now on."""
        for message in self.messages:
            other._keep(message)
        self._others.append(other)

    @property
    def payloads(self) -> list[Any]:
        return [message.payload for message in self.messages]

    async def count(self, wanted: int, what: str = "deliveries", *, beyond: float = 0.0) -> None:
        """Wait for that many."""
        try:
            await self._bed.within(self._reach(wanted), what, beyond=beyond)
        except Broken:
            same(len(self.messages), wanted, what)

    async def exactly(self, wanted: int, what: str = "deliveries") -> list[Message]:
        """Wait for that many, and see that no more come."""
        if wanted:
            await self.count(wanted, what)
        await self._no_more_than(wanted)
        same(len(self.messages), wanted, what)
        return self.messages

    async def include(self, payloads: Iterable[Any], *, beyond: float = 0.0) -> None:
        """Wait for each of these (hashable, different) payloads at least once, whatever else comes."""
        wanted = set(payloads)
        try:
            await self._bed.within(self._cover(wanted), "every delivery", beyond=beyond)
        except Broken:
            lost = sorted(wanted.difference(_hashable(self.payloads)))
            raise Broken(f"lost {len(lost)} of {len(wanted)} messages, first {lost[:5]}") from None

    async def every(self, payloads: Iterable[Any]) -> None:
        """Wait for each of these (hashable, different) payloads once; losses and duplicates are told apart."""
        wanted = set(payloads)
        await self.include(wanted)
        await self._no_more_than(len(wanted))
        twice = [payload for payload, n in Counter(self.payloads).items() if n > 1]
        same(len(twice), 0, f"messages delivered more than once ({twice[:5]}…)")
        same(set(self.payloads) - wanted, set(), "messages that nobody published")

    async def _no_more_than(self, count: int) -> None:
        """Return when nothing more would have come, or one too many has."""
        quiet, excess = (asyncio.ensure_future(wait) for wait in (self._bed.quiet(), self._reach(count + 1)))
        await asyncio.wait({quiet, excess}, return_when=asyncio.FIRST_COMPLETED)
        for task in (quiet, excess):
            task.cancel()
        await asyncio.wait({quiet, excess})

    async def _cover(self, wanted: set[Any]) -> None:
        missing, seen = set(wanted), 0
        while missing:
            missing.difference_update(_hashable(self.payloads[seen:]))
            seen = len(self.messages)
            if missing:
                self._grown.clear()
                await self._grown.wait()

    async def _reach(self, wanted: int) -> None:
        while len(self.messages) < wanted:
            self._grown.clear()
            await self._grown.wait()


def _hashable(payloads: Iterable[Any]) -> Iterator[Any]:
    return (payload for payload in payloads if isinstance(payload, Hashable))
