"""Subscriptions: what ``bus.subscribe`` answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from neuralcore.messaging.checks import check_count, check_positive, check_seconds, check_text, check_type

if TYPE_CHECKING:
    from neuralcore.messaging.handler import Compiled
    from neuralcore.messaging.intake import Intake
    from neuralcore.messaging.settle import Settlement
    from neuralcore.messaging.subscriptions import Subscriptions
    from neuralcore.messaging.terms import Terms
    from neuralcore.messaging.transport import Cursor
    from neuralcore.messaging.workers import Workers

__all__ = ["Subscription", "check_member"]

_MOST_WORKERS = 65_536
"""Of one subscription: each is a task."""


class Subscription:
    """A handler's interest in channels. Calling it calls the handler, so a decorated function stays a function."""

    def __init__(
        self,
        siblings: Subscriptions,
        terms: Terms,
        handler: Callable[..., Any],
        compiled: Compiled,
        *,
        concurrency: int,
        batch: int,
        timeout: float | None,
        name: str,
    ) -> None:
        self._siblings = siblings
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
        await self._siblings.ready(self)

    async def seek(self, position: Cursor) -> None:
        """Have every kept message from there on again, as if it were new: the whole group, not this member alone.

        ``"beginning"``, ``"new"``, a message's id, or a time (aware). What handlers have at this moment is lost to them
        (``message.lease_lost``). Raises Unsupported, ValueError for a position that cannot be found, Closed when it has
        ended.
        """
        await self._siblings.seek(self, position)

    async def unsubscribe(self, *, drain: bool = True, timeout: float = 10.0) -> None:
        """End it. Harmless when repeated.

        What its workers are handling is finished (``drain``) or given back. What waits in the mailbox stays for the
        group's other members; when it was the last one, it is handled inside ``timeout`` seconds, or goes back to the
        transport. On ``native://`` there is nowhere to go back to: what is left is gone, and counted as ``dropped``.

        Inside one of its own handlers it only stops what comes in and returns at once, for it cannot wait for itself:
        that handler ends as usual, the rest happens in the background, and closing the bus waits for it.
        """
        check_seconds("timeout", timeout)
        await self._siblings.end(self, drain=drain, timeout=timeout)


def check_member(
    *, concurrency: int, batch: int, timeout: float | None, blocking: bool | None, name: str | None
) -> None:
    """What each member of a group may choose for itself; what they share is checked with their Terms."""
    check_count("concurrency", concurrency, most=_MOST_WORKERS)
    check_count("batch", batch, least=0)
    if timeout is not None:
        check_positive("timeout", timeout)
    check_type("blocking", blocking, bool, type(None))
    if name is not None:
        check_text("name", name)
