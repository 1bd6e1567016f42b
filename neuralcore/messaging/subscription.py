"""Subscriptions: what ``bus.subscribe`` answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from neuralcore.messaging.checks import check_count, check_positive, check_text, check_type

if TYPE_CHECKING:
    from neuralcore.messaging.bus import MessageBus
    from neuralcore.messaging.context import BusContext
    from neuralcore.messaging.handler import Compiled
    from neuralcore.messaging.intake import Intake
    from neuralcore.messaging.settle import Settlement
    from neuralcore.messaging.terms import Terms
    from neuralcore.messaging.workers import Workers

__all__ = ["Subscription", "Subscriptions", "check_member"]


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
        intake = self.intake
        return self.workers is not None and intake is not None and self in intake.members and not intake.ending

    async def ready(self) -> None:
        """Returns once its position is fixed: what is published from now on reaches it."""
        await self._bus._ready(self)

    async def unsubscribe(self, *, drain: bool = True, timeout: float = 10.0) -> None:
        """End it. Harmless when repeated.

        What its workers are handling is finished (``drain``) or given back. What waits in the mailbox stays for the
        group's other members; when it was the last one, it is handled inside ``timeout`` seconds, or goes back to the
        transport. On ``native://`` there is nowhere to go back to: what is left is gone, and counted as ``dropped``.

        Inside one of its own handlers it only stops what comes in and returns at once, for it cannot wait for itself:
        that handler ends as usual, the rest happens in the background, and closing the bus waits for it.
        """
        await self._bus._unsubscribe(self, drain=drain, timeout=timeout)


class Subscriptions:
    """Those of one bus, in the order they were made."""

    def __init__(self, context: BusContext) -> None:
        self._context = context
        self._all: dict[Subscription, None] = {}
        self._members: dict[tuple[str, str], dict[Subscription, None]] = {}
        """By group and pattern."""

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(list(self._all))

    def add(self, subscription: Subscription) -> None:
        """Raises BadHandler when it does not agree with the members of its group, started or not."""
        shared = subscription.terms.shared
        if shared is not None:
            members = self._members.setdefault(shared, {})
            for member in list(members)[:1]:
                member.terms.agree(subscription.terms, self._context)
            members[subscription] = None
        self._all[subscription] = None

    def remove(self, subscription: Subscription) -> bool:
        """False when it was not there."""
        if self._all.pop(subscription, self) is self:
            return False
        shared = subscription.terms.shared
        if shared is not None:
            members = self._members[shared]
            del members[subscription]
            if not members:
                self._members.pop(shared, None)
        return True


def check_member(
    *, concurrency: int, batch: int, timeout: float | None, blocking: bool | None, name: str | None
) -> None:
    """What each member of a group may choose for itself; what they share is checked with their Terms."""
    check_count("concurrency", concurrency)
    check_count("batch", batch, least=0)
    if timeout is not None:
        check_positive("timeout", timeout)
    check_type("blocking", blocking, bool, type(None))
    if name is not None:
        check_text("name", name)
