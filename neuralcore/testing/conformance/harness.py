"""What a transport's author brings, so that the suite can drive it.

Only ``transport`` is required. What a harness leaves out reads "unproven" in the report.

    class MyHarness(Harness):
        def transport(self) -> str:
            return "mine://localhost/conformance"

        async def restart(self) -> None:
            await my_broker.restart()
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.registry import transport_for
from neuralcore.messaging.transport import Capabilities, Transport
from neuralcore.testing.conformance.promise import Unproven

__all__ = ["Client", "Harness"]

T = TypeVar("T")


class Client(ABC):
    """A program of its own that consumes one channel in one group and can be killed.

    It holds every message it gets, but for those that ask for something else: its handler calls ``errand`` first.
    """

    @abstractmethod
    async def holding(self, count: int) -> None:
        """Wait until it holds that many messages, those counted that it has let go."""

    @abstractmethod
    async def kill(self) -> None:
        """As ``kill -9`` does: it settles nothing, releases nothing and says nothing."""

    async def pause(self) -> None:
        """As ``kill -STOP`` does: nobody extends its leases."""
        raise Unproven("the harness cannot pause a client")

    async def resume(self) -> None:
        """It goes on as if nothing had been."""
        raise Unproven("the harness cannot pause a client")

    async def lost(self, count: int) -> None:
        """Wait until that many of the messages that it holds know that their lease is lost."""
        raise Unproven("the harness cannot see a client's messages")

    async def finish(self) -> None:
        """Let the handlers that hold messages return."""
        raise Unproven("the harness cannot let a client's handlers return")


class Harness(ABC):
    name: str = ""
    patience: float = 20.0
    """Seconds after which something that must happen counts as not happening."""
    grace: float = 0.5
    """Seconds in which something that must not happen would have happened."""
    lease: float = 10.0
    """Seconds after which the deliveries of a client that was killed come back."""
    trimming: float = 0.0
    """Seconds that the store may take to trim what retention does not keep."""
    shared: bool = False
    """The store outlives a check: groups are removed after it, or they would hold messages of later ones."""
    slack: float | None = None
    """Seconds by which a timer may be late, where the harness can say (in virtual time)."""

    @abstractmethod
    def transport(self) -> str | Transport:
        """A URL, or a new transport that is not open yet: one more client of the same store."""

    def capabilities(self) -> Capabilities:
        """What the transport declares."""
        return transport_for(self.transport()).capabilities

    def bus(self, **options: Any) -> MessageBus:
        """One more client of the store, not started."""
        return MessageBus(self.transport(), **options)

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run one check, in an event loop of its own."""
        return asyncio.run(main())

    async def begin(self) -> None:
        """Before each check, inside its loop."""

    async def end(self) -> None:
        """After each check, inside its loop; its buses are closed."""

    async def quiet(self) -> None:
        """Return when what must not happen would have happened."""
        await asyncio.sleep(self.grace)

    async def soon(self) -> None:
        """Return when what can happen at this moment has happened."""
        await asyncio.sleep(self.grace / 10)

    def wall(self) -> float:
        """Seconds since the Unix epoch, as clients and store see it."""
        return time.time()

    async def advance(self, seconds: float) -> None:
        """Let time pass for clients and store."""
        if seconds > self.patience:
            raise Unproven(f"the harness does not wait {seconds:g} s")
        await asyncio.sleep(seconds)

    async def spawn(self, channel: str, group: str, *, concurrency: int = 1) -> Client:
        raise Unproven("the harness cannot kill a client")

    async def publish_and_die(self, channel: str, count: int) -> None:
        """Have a client publish the numbers below ``count``, and be killed as soon as the last publish has returned."""
        raise Unproven("the harness cannot kill a client")

    async def restart(self) -> None:
        """Stop the broker as its power switch would, and start it again."""
        raise Unproven("the harness cannot restart the broker")
