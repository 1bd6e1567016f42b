"""Finds the mailboxes of a channel and publishes into them."""

from __future__ import annotations

import os
import weakref
from asyncio import Future
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from inspect import Parameter, Signature, signature
from threading import RLock
from typing import TYPE_CHECKING, Any, final

from neuralcore._options import check_required, check_texts, integer
from neuralcore.fallback.awaitables import done, done_after_yield
from neuralcore.fallback.ids import IdSource
from neuralcore.fallback.many import publish_many
from neuralcore.fallback.message import IN_FLIGHT, Published
from neuralcore.fallback.patterns import Patterns, is_exact
from neuralcore.fallback.route import Route
from neuralcore.fallback.waiting import wait_for_room

if TYPE_CHECKING:
    from neuralcore.fallback.clock import Clock
    from neuralcore.fallback.mailbox import Mailbox
    from neuralcore.fallback.message import Message
    from neuralcore.fallback.ranks import RankQueue
    from neuralcore.fallback.slots import Slots
    from neuralcore.fallback.workers import Workers

__all__ = ["Direct", "Router"]

Direct = tuple["Route", "Mailbox", "Slots", "RankQueue", "Workers", Callable[[], bool], Callable[[], None]]
"""The route, its only mailbox, and the parts of that which a publish touches."""


@final
class Router:
    """Finds the mailboxes of a channel (a table of exact names, a trie of patterns) and publishes into them.

    A publish enters at once when there is room everywhere; the awaitable is then already done. Otherwise it takes
    its slots in ascending mailbox order, keeps those it has, and enters only when it has all.
    """

    __slots__ = (
        "__weakref__",
        "_any_rank",
        "_block",
        "_budget",
        "_clock",
        "_closed",
        "_direct",
        "_due",
        "_error",
        "_high",
        "_ids",
        "_left",
        "_lock",
        "_low",
        "_missing",
        "_patterns",
        "_routes",
        "_source",
        "_wall",
    )

    def __init__(
        self,
        clock: Clock,
        *,
        missing: Callable[[str], Route],
        error: Callable[[str, str, object], BaseException],
        any_rank: bool = False,
        budget: int = 256,
    ) -> None:
        """``missing(channel)`` makes (or refuses) the route of a channel used for the first time.

        ``error(kind, channel, detail)`` builds what is raised: kind is ``full`` (detail: the refused Message),
        ``deadlock`` (likewise: a handler published into the full mailbox that only its own workers drain),
        ``no_subscribers``, ``priority`` (detail: the number), ``idempotency`` (detail: the key; mailboxes remember
        none), ``many`` (detail: results and errors by index), ``closed``,
        ``loop_closed`` (the loops of all workers there are closed).
        ``any_rank`` lifts the limit of 0 to 255 on priorities. Every ``budget``-th awaited publish yields once to the
        loop.
        """
        if budget < 1:
            raise ValueError(f"a router's budget is 1 or more, not {budget}")
        self._clock = clock
        self._wall = clock._wall
        self._missing = missing
        self._error = error
        self._any_rank = any_rank
        self._low, self._high = (-(2**63), 2**63 - 1) if any_rank else (0, 255)
        self._budget = self._left = budget
        self._block = 1
        self._due = False
        """The next publish that is awaited yields."""
        self._closed = False
        self._lock = RLock()
        self._patterns = Patterns()
        self._routes: dict[str, Route] = {}
        self._direct: dict[str, Direct] = {}
        """Channels where a publish has nothing to do but to enter one mailbox."""
        self._source = IdSource()
        self._ids: Iterator[str] = iter(())
        _routers.add(self)

    @property
    def id_prefix(self) -> str:
        """16 hexadecimal digits: random per router and new after fork."""
        return self._source.prefix

    def next_id(self) -> str:
        """32 hexadecimal digits: the prefix and a counter."""
        return next(self._ids, None) or self._refill()

    def publish(
        self, channel: str, payload: Any, *, priority: int | None = None, **options: Any
    ) -> Awaitable[str | None]:
        """Publish; the awaitable yields the id, or None when an overflow policy dropped the message.

        ``ttl`` and ``delay`` are seconds, ``not_before`` is wall-clock seconds.
        """
        # One mailbox, room in it, no options: all written out here, because a call costs a tenth of the whole.
        direct = self._direct.get(channel)
        if direct is None or options:
            return self._publish(channel, payload, priority, options)
        route, mailbox, slots, queue, workers, acquire, release = direct
        if priority is None:
            priority = route._priority
        elif type(priority) is not int or not self._low <= priority <= self._high:
            priority = route._rank(priority)
        identity = next(self._ids, None)
        if identity is None:
            # The first of a block: its latencies are measured, and it may be its turn to yield.
            return route.publish(payload, priority=priority)
        message = Published()
        message._id = identity
        message._channel = channel
        message._payload = payload
        message._rank = priority
        message._timestamp_ns = self._wall()
        message._extras = None
        message._mailbox = mailbox
        # Nobody can see it before it is.
        message._state = IN_FLIGHT
        entered = False
        acquire()
        try:
            resting = workers.resting
            if slots.taken < slots.ceiling and not (resting and mailbox._deserted()):
                slots.taken += 1
                if priority == queue.top_rank:
                    queue.top.append(message)
                else:
                    queue.push(priority, message)
                route._published += 1
                if not resting:
                    return done(identity)
                entered = True
        finally:
            release()
        if entered:
            mailbox._rouse()
            return done(identity)
        return self._crowded(route, message)

    def publish_nowait(self, channel: str, payload: Any, **options: Any) -> str | None:
        """Publish without waiting: a mailbox that would block refuses (``full``). Goes past the route's path."""
        answer = self._route(channel)._send(False, payload, **options)
        assert not isinstance(answer, Future)
        return answer

    async def publish_many(self, items: Iterable[tuple[Any, ...]]) -> Sequence[str | None]:
        """Publish ``(channel, payload[, priority[, options mapping]])`` items in order, waiting for room as needed.

        An item that is refused does not stop the others; the error then raised has ``add_note``-free fields set by
        ``error("many", "", (results, {index: exception}))``.
        """
        return await publish_many(self, items)

    def attach(self, pattern: str, mailbox: Mailbox, *, group: str | None = None) -> None:
        """Route a pattern into a mailbox.

        Of one group's patterns that match a channel, the most specific one gets it.
        """
        check_required(pattern=pattern)
        check_texts(group=group)
        with self._lock:
            self._patterns.add(pattern, mailbox, group)
            self._forget(pattern)

    def detach(self, pattern: str, mailbox: Mailbox) -> None:
        with self._lock:
            self._patterns.remove(pattern, mailbox)
            self._forget(pattern)

    def match(self, channel: str) -> list[Mailbox]:
        """The mailboxes a message on this channel enters, in ascending mailbox order."""
        with self._lock:
            return self._patterns.match(channel)

    def add(self, route: Route) -> None:
        with self._lock:
            self._routes[route.channel] = route
            self._recompile(route)

    def remove(self, channel: str) -> None:
        with self._lock:
            self._routes.pop(channel, None)
            self._direct.pop(channel, None)

    def routes(self) -> dict[str, Route]:
        with self._lock:
            return dict(self._routes)

    def close(self) -> None:
        """Refuse later publishes with ``error("closed", …)``, except through ``Route.publish``."""
        with self._lock:
            self._closed = True
            self._direct.clear()

    def __repr__(self) -> str:
        return f"<Router {self.id_prefix}: {len(self._routes)} routes{', closed' if self._closed else ''}>"

    def _publish(
        self, channel: str, payload: Any, priority: int | None, options: dict[str, Any]
    ) -> Awaitable[str | None]:
        route = self._route(channel)
        if route._path is None:
            return route.publish(payload, priority=priority, **options)
        given = {name: value for name, value in options.items() if value is not None}
        if priority is not None:
            given["priority"] = priority
        return route._path(payload, **given)

    def _crowded(self, route: Route, message: Message) -> Awaitable[str | None]:
        """A plain message that found no room at once."""
        mailbox = message._mailbox
        message._mailbox = None
        if mailbox is not None and mailbox._slots.overflow == "block" and not mailbox._slots.deserted:
            return wait_for_room(route, message, mailbox, None, mandatory=False)
        answer = route._hand_over(message, None, False, True)
        return answer if isinstance(answer, Future) else self._answer(answer)

    def _route(self, channel: str) -> Route:
        if self._closed:
            raise self._error("closed", channel, None)
        route = self._routes.get(channel)
        if route is None:
            route = self._missing(channel)
            with self._lock:
                route = self._routes.setdefault(channel, route)
        return route

    def _compile(self, route: Route) -> tuple[Mailbox, ...]:
        with self._lock:
            mailboxes = route._mailboxes = tuple(self._patterns.match(route.channel))
            plain = route._path is None and route._ttl_ns is None and not self._closed
            if len(mailboxes) == 1 and plain and self._routes.get(route.channel) is route:
                mailbox = mailboxes[0]
                acquire, release = mailbox._lock.acquire, mailbox._lock.release
                self._direct[route.channel] = (
                    route,
                    mailbox,
                    mailbox._slots,
                    mailbox._queue,
                    mailbox._workers,
                    acquire,
                    release,
                )
            return mailboxes

    def _forget(self, pattern: str) -> None:
        if is_exact(pattern):
            routes = [self._routes[pattern]] if pattern in self._routes else []
        else:
            routes = list(self._routes.values())
        for route in routes:
            self._recompile(route)

    def _recompile(self, route: Route) -> None:
        route._mailboxes = None
        self._direct.pop(route.channel, None)

    def _rank(self, channel: str, priority: int) -> int:
        rank = integer("priority", priority)
        if not self._low <= rank <= self._high:
            raise self._error("priority", channel, priority)
        return rank

    def _refill(self) -> str:
        """The first of a new block of ids.

        Blocks count the awaited publishes, since each takes an id: with the last of its budget a block ends, and the
        publish that finds it empty yields. If it was not an awaited one, a block of one id lets the next one see.
        """
        self._left -= self._block
        if self._left <= 0:
            self._left = self._budget
            self._due = True
        ids = self._source.take(1 if self._due and self._block != 1 else self._left)
        self._block = len(ids)
        self._ids = iter(ids)
        return next(self._ids)

    def _answer(self, value: str | None) -> Awaitable[str | None]:
        """Already done; every budget-th lets the loop run."""
        if self._due:
            self._due = False
            return done_after_yield(value)
        return done(value)


_routers: weakref.WeakSet[Router] = weakref.WeakSet()


def _after_fork() -> None:
    for router in _routers:
        router._source.reseed()
        router._ids = iter(())


os.register_at_fork(after_in_child=_after_fork)


def _sign(method: Any, answer: Any) -> None:
    """Name the options, all of which are the route's: as parameters they cost time even when they are not given."""
    instance, *rest = signature(Route.publish).parameters.values()
    channel = Parameter("channel", Parameter.POSITIONAL_OR_KEYWORD, annotation="str")
    method.__signature__ = Signature([instance, channel, *rest], return_annotation=answer)


_sign(Router.publish, "Awaitable[str | None]")
_sign(Router.publish_nowait, "str | None")
