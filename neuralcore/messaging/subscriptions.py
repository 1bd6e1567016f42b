"""The subscriptions of one bus: they agree with each other, begin with the bus, follow its middleware, and end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from neuralcore.messaging.context import BusContext
from neuralcore.messaging.errors import Closed
from neuralcore.messaging.intakes import Intakes
from neuralcore.messaging.life import Life
from neuralcore.messaging.link import Link
from neuralcore.messaging.loops import on_loop
from neuralcore.messaging.paths import handle_path
from neuralcore.messaging.subscription import Subscription
from neuralcore.messaging.transport import Cursor
from neuralcore.messaging.workers import Workers

__all__ = ["Subscriptions"]


class Subscriptions:
    """In the order they were made."""

    def __init__(self, context: BusContext, life: Life, link: Link, intakes: Intakes) -> None:
        self._context = context
        self._life = life
        self._link = link
        self._intakes = intakes
        self._all: dict[Subscription, None] = {}
        self._members: dict[tuple[str, str], dict[Subscription, None]] = {}
        """By group and pattern."""

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(list(self._all))

    def register(self, subscription: Subscription) -> None:
        """Let it begin, now or with the bus. One that is refused is forgotten.

        Raises BadHandler when it does not agree with the members of its group, started or not; Closed, UnknownChannel.
        """
        self._life.check_usable()
        self._add(subscription)
        try:
            if self._life.stage == "running":
                self._activate(subscription)
        except BaseException:
            self._remove(subscription)
            raise

    def begin(self) -> None:
        """The bus starts: activate what was registered before."""
        for subscription in self:
            if subscription.intake is None:
                self._activate(subscription)

    async def all_ready(self) -> None:
        """Each has its position."""
        for subscription in self:
            await subscription.ready()

    async def ready(self, subscription: Subscription) -> None:
        if subscription.intake is None:
            self._life.refuse()
        self._context.check_loop()
        await self._link.attached(subscription.intake)

    async def seek(self, subscription: Subscription, position: Cursor) -> None:
        await self.ready(subscription)
        if subscription.intake is None or not subscription.active:
            raise Closed(f"the subscription {subscription.name}")
        await self._link.seek(subscription.intake, position)

    def recompile(self) -> None:
        """What stands around handlers has changed."""
        for subscription in self:
            if subscription.workers is not None:
                workers = subscription.workers
                on_loop(workers.loop, partial(workers.swap, self._call_of(subscription)))

    async def end(self, subscription: Subscription, *, drain: bool, timeout: float) -> None:
        if not self._remove(subscription):
            return
        if subscription.intake is not None and subscription.workers is not None:
            await self._intakes.stop(
                subscription.intake, subscription, subscription.workers, drain=drain, timeout=timeout
            )

    def workers(self) -> list[Workers]:
        """Of all that live, and of those that have ended but still have something to handle."""
        active = [subscription.workers for subscription in self if subscription.workers is not None]
        return [*active, *self._intakes.leaving]

    def _activate(self, subscription: Subscription) -> None:
        self._link.check_terms_known(subscription.terms)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = self._context.loop
        call = self._call_of(subscription)
        subscription.intake, subscription.workers = self._intakes.start(subscription, call, loop)

    def _call_of(self, subscription: Subscription) -> Callable[[Any], Any]:
        return handle_path(
            subscription.compiled.call,
            batch=subscription.batch,
            middleware=self._context.middleware,
        )

    def _add(self, subscription: Subscription) -> None:
        shared = subscription.terms.shared
        if shared is not None:
            members = self._members.setdefault(shared, {})
            for member in list(members)[:1]:
                member.terms.agree(subscription.terms, self._context)
            members[subscription] = None
        self._all[subscription] = None

    def _remove(self, subscription: Subscription) -> bool:
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
