"""The publish path of one channel."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Awaitable, Callable, Mapping
from operator import index
from typing import TYPE_CHECKING, Any, final

from neuralcore._options import MAX_NS, check_headers, check_integers, check_message_id, check_texts, nanoseconds
from neuralcore.fallback.awaitables import done
from neuralcore.fallback.delays import Due
from neuralcore.fallback.extras import NO_EXTRAS, Extras
from neuralcore.fallback.fanout import enter_everywhere
from neuralcore.fallback.histogram import Recorder
from neuralcore.fallback.message import QUEUED, Published
from neuralcore.fallback.reservation import Reservation
from neuralcore.fallback.slots import CLOSED, DROPPED, FULL, GRANTED, KINDS
from neuralcore.fallback.stats import RouteStats
from neuralcore.fallback.waiting import wait_for_room

if TYPE_CHECKING:
    from neuralcore.fallback.mailbox import Mailbox
    from neuralcore.fallback.message import Message
    from neuralcore.fallback.router import Router

__all__ = ["Path", "Route"]

Path = Callable[..., Awaitable["str | None"]]

_PLAIN = (None,) * 6


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
        check_integers(priority=priority, ttl_ns=ttl_ns)
        with self._router._lock:
            self._priority = index(priority)
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
        idempotency_key: str | None = None,
        mandatory: bool = False,
    ) -> Awaitable[str | None]:
        answer = self._send(
            True,
            payload,
            priority=priority,
            headers=headers,
            key=key,
            ttl=ttl,
            delay=delay,
            not_before=not_before,
            correlation_id=correlation_id,
            reply_to=reply_to,
            content_type=content_type,
            message_id=message_id,
            idempotency_key=idempotency_key,
            mandatory=mandatory,
        )
        return answer if isinstance(answer, Future) else self._router._answer(answer)

    def stats(self) -> RouteStats:
        return RouteStats(self._published, self._unrouted, self._dropped, self._refusals, self._latency.snapshot())

    def __repr__(self) -> str:
        return f"<Route {self._channel!r}>"

    def _send(
        self,
        wait: bool,
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
        idempotency_key: str | None = None,
        mandatory: bool = False,
    ) -> str | Future[str | None] | None:
        router = self._router
        clock = router._clock
        if idempotency_key is not None:
            self._refusals += 1
            raise router._error("idempotency", self._channel, idempotency_key)
        if message_id is not None:
            check_message_id(message_id)
        started = 0
        identity = next(router._ids, None)
        if identity is None:
            identity = router._refill()
            started = clock._monotonic()
        now = clock._wall()
        message = Published()
        message._id = identity if message_id is None else message_id
        message._channel = self._channel
        message._payload = payload
        message._rank = self._priority if priority is None else self._rank(priority)
        message._timestamp_ns = now
        message._mailbox = None
        message._state = QUEUED
        message._stamp = started
        expires = self._expiry(now, ttl)
        if (headers, key, correlation_id, reply_to, content_type, expires) == _PLAIN:
            message._extras = NO_EXTRAS if started else None
        else:
            check_texts(key=key, correlation_id=correlation_id, reply_to=reply_to, content_type=content_type)
            check_headers(headers)
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
        if started and not isinstance(answer, Future):
            self._latency.record(clock._monotonic() - started)
        return answer

    def _publish_message(self, message: Message) -> Awaitable[str | None]:
        answer = self._hand_over(message, None, False, True)
        return answer if isinstance(answer, Future) else done(answer)

    def _hand_over(
        self, message: Message, due: Due | None, mandatory: bool, wait: bool
    ) -> str | Future[str | None] | None:
        mailboxes = self._mailboxes
        if mailboxes is None:
            mailboxes = self._router._compile(self)
        if not mailboxes:
            return self._left_out(message, dropped=False, mandatory=mandatory)
        if len(mailboxes) == 1:
            return self._hand_over_to(mailboxes[0], message, due, mandatory, wait)
        if due is None and enter_everywhere(message, mailboxes):
            return self._took(message)
        return Reservation(self, message, mailboxes, due, mandatory=mandatory).start(wait=wait)

    def _hand_over_to(
        self, mailbox: Mailbox, message: Message, due: Due | None, mandatory: bool, wait: bool
    ) -> str | Future[str | None] | None:
        outcome = mailbox._publish(message, due)
        if outcome == GRANTED:
            return self._took(message)
        if outcome in {DROPPED, CLOSED}:
            return self._left_out(message, dropped=outcome == DROPPED, mandatory=mandatory)
        if outcome == FULL and wait:
            return wait_for_room(self, message, mailbox, due, mandatory=mandatory)
        raise self._refused(KINDS[outcome], message)

    def _rank(self, priority: int) -> int:
        try:
            return self._router._rank(self._channel, priority)
        except BaseException:
            self._refusals += 1
            raise

    def _expiry(self, now: int, ttl: float | None) -> int | None:
        if ttl is not None:
            return min(now + nanoseconds("ttl", ttl), MAX_NS)
        return None if self._ttl_ns is None else now + self._ttl_ns

    def _due(self, now: int, delay: float | None, not_before: float | None) -> Due:
        if not_before is None:
            assert delay is not None
            return Due(self._router._clock._monotonic() + nanoseconds("delay", delay), wall=False)
        earliest = now if delay is None else now + nanoseconds("delay", delay)
        return Due(max(earliest, nanoseconds("not_before", not_before)), wall=True)

    def _took(self, message: Message) -> str:
        """At least one mailbox took it."""
        self._published += 1
        return message._id

    def _left_out(self, message: Message, *, dropped: bool, mandatory: bool) -> str | None:
        """No mailbox took it."""
        if dropped:
            self._dropped += 1
            return None
        if mandatory:
            raise self._refused("no_subscribers", message)
        self._unrouted += 1
        return message._id

    def _refused(self, kind: str, message: Message) -> BaseException:
        self._refusals += 1
        return self._router._error(kind, self._channel, None if kind == "loop_closed" else message)
