"""The publish path of one channel."""

from __future__ import annotations

import math
from asyncio import Future
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, final

from neuralcore.fallback.delays import Due
from neuralcore.fallback.effects import Effects
from neuralcore.fallback.extras import Extras
from neuralcore.fallback.histogram import Recorder
from neuralcore.fallback.message import QUEUED, Message, new_message
from neuralcore.fallback.reservation import Reservation
from neuralcore.fallback.stats import RouteStats

if TYPE_CHECKING:
    from neuralcore.fallback.mailbox import Mailbox
    from neuralcore.fallback.router import Router

__all__ = ["Path", "Route"]

_PLAIN = (None,) * 6

Path = Callable[..., Awaitable["str | None"]]


@final
class Route:
    """The publish path of one channel: its defaults, its counters, its compiled list of mailboxes."""

    __slots__ = (
        "_channel",
        "_dropped",
        "_latency",
        "_mailboxes",
        "_path",
        "_priority",
        "_published",
        "_refusals",
        "_router",
        "_single",
        "_ttl_ns",
        "_unrouted",
    )

    def __init__(
        self,
        router: Router,
        channel: str,
        *,
        priority: int = 50,
        ttl_ns: int | None = None,
        path: Path | None = None,
    ) -> None:
        self._router = router
        self._channel = channel
        self._mailboxes: tuple[Mailbox, ...] | None = None
        """Compiled at the first publish after a change."""
        self._published = self._unrouted = self._dropped = self._refusals = 0
        self._latency = Recorder()
        self.configure(priority=priority, ttl_ns=ttl_ns, path=path)

    @property
    def channel(self) -> str:
        return self._channel

    def configure(self, *, priority: int, ttl_ns: int | None, path: Path | None) -> None:
        """Swap all three at once.

        With a ``path`` (middleware, tracing, checks) ``Router.publish`` answers ``path(payload, **options)``; the path
        ends in ``Route.publish``, which goes straight to the mailboxes.
        """
        priority = self._router._rank(self._channel, priority)
        with self._router._lock:
            self._priority = priority
            self._ttl_ns = ttl_ns
            self._path = path
            self._router._recompile(self)

    def publish(
        self,
        payload: Any,
        *,
        priority: int | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        ttl: float | None = None,
        delay: float | None = None,
        not_before: float | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        content_type: str | None = None,
        message_id: str | None = None,
        mandatory: bool = False,
    ) -> Awaitable[str | None]:
        answer = self._send(
            payload,
            priority,
            headers,
            key,
            ttl,
            delay,
            not_before,
            correlation_id,
            reply_to,
            content_type,
            message_id,
            mandatory,
            wait=True,
        )
        return answer if isinstance(answer, Future) else self._router._answer(answer)

    def stats(self) -> RouteStats:
        return RouteStats(self._published, self._unrouted, self._dropped, self._refusals, self._latency.snapshot())

    def __repr__(self) -> str:
        return f"<Route {self._channel!r}>"

    def _send(
        self,
        payload: Any,
        priority: int | None,
        headers: Mapping[str, str] | None,
        key: str | None,
        ttl: float | None,
        delay: float | None,
        not_before: float | None,
        correlation_id: str | None,
        reply_to: str | None,
        content_type: str | None,
        message_id: str | None,
        mandatory: bool,
        *,
        wait: bool,
    ) -> str | None | Future[str | None]:
        router = self._router
        clock = router._clock
        started = 0
        if message_id is None:
            message_id = next(router._ids, None)
            if message_id is None:
                message_id = router._refill()
                started = clock._monotonic()
        now = clock._wall()
        message = new_message(Message)
        message._id = message_id
        message._channel = self._channel
        message._payload = payload
        message._rank = self._priority if priority is None else router._rank(self._channel, priority)
        message._timestamp_ns = now
        message._mailbox = None
        message._state = QUEUED
        message._stamp = started
        expires = self._expiry(now, ttl)
        message._extras = None
        if (headers, key, correlation_id, reply_to, content_type, expires) != _PLAIN:
            message._extras = Extras(
                headers=headers,
                key=key,
                correlation_id=correlation_id,
                reply_to=reply_to,
                expires_at_ns=expires,
                content_type=content_type,
            )
        due = None if delay is None and not_before is None else self._due(now, delay, not_before)
        answer = self._hand_over(message, due, mandatory, wait)
        if started:
            self._latency.record(clock._monotonic() - started)
        return answer

    def _hand_over(
        self, message: Message, due: Due | None, mandatory: bool, wait: bool
    ) -> str | None | Future[str | None]:
        mailboxes = self._mailboxes
        if mailboxes is None:
            mailboxes = self._router._compile(self)
        if not mailboxes:
            if mandatory:
                raise self._refused("no_subscribers", message)
            self._unrouted += 1
            return message._id
        if len(mailboxes) == 1 and due is None:
            mailbox = mailboxes[0]
            effects = Effects(mailbox)
            with mailbox._lock:
                entered = mailbox._used < mailbox._limit
                if entered:
                    mailbox._used += 1
                    mailbox._push(message, effects)
                    self._published += 1
            if entered:
                effects.run()
                return message._id
        return Reservation(self, message, mailboxes, due).start(wait=wait)

    def _expiry(self, now: int, ttl: float | None) -> int | None:
        if ttl is not None:
            return now + _nanoseconds("ttl", ttl)
        return None if self._ttl_ns is None else now + self._ttl_ns

    def _due(self, now: int, delay: float | None, not_before: float | None) -> Due:
        if not_before is None:
            assert delay is not None
            return Due(self._router._clock._monotonic() + _nanoseconds("delay", delay), wall=False)
        earliest = now if delay is None else now + _nanoseconds("delay", delay)
        return Due(max(earliest, _nanoseconds("not_before", not_before)), wall=True)

    def _count(self, message: Message, entered: int) -> str | None:
        if entered:
            self._published += 1
            return message._id
        self._dropped += 1
        return None

    def _refused(self, kind: str, message: Message) -> BaseException:
        self._refusals += 1
        return self._router._error(kind, self._channel, message)


def _nanoseconds(name: str, seconds: float) -> int:
    if not math.isfinite(seconds):
        raise ValueError(f"{name} is a finite number of seconds, not {seconds}")
    return round(seconds * 1_000_000_000)
