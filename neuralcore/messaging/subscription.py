"""Subscriptions: what ``bus.subscribe`` answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuralcore.messaging.bus import MessageBus
    from neuralcore.messaging.handler import Compiled
    from neuralcore.messaging.intake import Intake, Terms
    from neuralcore.messaging.settle import Settlement
    from neuralcore.messaging.workers import Workers

__all__ = ["Subscription"]


class Subscription:
    """A handler's interest in channels. Calling it calls the handler, so a decorated function stays a function."""

    def __init__(
        self,
        bus: MessageBus,
        terms: Terms,
        handler: Callable[..., Any],
        compiled: Compiled,
        *,
        concurrency: int,
        batch: int,
        timeout: float | None,
        name: str,
    ) -> None:
        self._bus = bus
        self.terms = terms
        self._handler = handler
        self.compiled = compiled
        self.batch = batch
        self.timeout = timeout
        self.intake: Intake | None = None
        self.workers: Workers | None = None
        self.concurrency = concurrency
        self.name = name
        self.__wrapped__ = handler
        self.__doc__ = handler.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._handler(*args, **kwargs)

    def __repr__(self) -> str:
        state = "active" if self.active else "not started" if self.intake is None else "ended"
        return f"<Subscription {self.name} to {self.pattern!r} {state}>"

    @property
    def pattern(self) -> str:
        return self.terms.pattern

    @property
    def group(self) -> str | None:
        return self.terms.group

    @property
    def settlement(self) -> Settlement:
        """How its deliveries end; it has one once it was started."""
        assert self.intake is not None
        return self.intake.settlement

    @property
    def active(self) -> bool:
        return self.workers is not None and self.intake is not None and self in self.intake.members

    async def ready(self) -> None:
        """Returns once its position is fixed: what is published from now on reaches it."""
        await self._bus._ready(self)

    async def unsubscribe(self, *, drain: bool = True, timeout: float = 10.0) -> None:
        """End it. Harmless when repeated.

        What its workers are handling is finished (``drain``) or given back. What waits in the mailbox stays for the
        group's other members; when it was the last one, it is handled inside ``timeout`` seconds, or goes back to the
        transport.
        """
        await self._bus._unsubscribe(self, drain=drain, timeout=timeout)
