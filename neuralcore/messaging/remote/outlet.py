"""The publish path of one channel: its defaults, its limits, its counters."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from neuralcore._core import Clock, Message
from neuralcore._options import MAX_NS, check_headers, check_message_id, check_texts, integer, nanoseconds
from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.codec import Codec
from neuralcore.messaging.context import BusContext
from neuralcore.messaging.errors import ChannelFull, PayloadTooLarge, PublishError, PublishUnknown
from neuralcore.messaging.paths import Guard
from neuralcore.messaging.priority import check_priority
from neuralcore.messaging.remote.committer import Committer
from neuralcore.messaging.remote.meter import Meter
from neuralcore.messaging.remote.needs import check_publish
from neuralcore.messaging.remote.wire import replay_number
from neuralcore.messaging.remote.work import Done, Work
from neuralcore.messaging.transport import Capabilities, Envelope, PublishStatus

__all__ = ["Outlet", "Posted", "Publisher", "ids"]


def ids(prefix: str) -> Callable[[], str]:
    """32 hexadecimal digits: the bus's own 16 and a counter."""
    numbers = itertools.count(1)
    return lambda: f"{prefix}{next(numbers):016x}"


class Publisher:
    """What the outlets of one bus share."""

    def __init__(self, context: BusContext, committer: Committer, capabilities: Capabilities, codec: Codec) -> None:
        self.context = context
        self.committer = committer
        self.capabilities = capabilities
        self.codec = codec
        self.next_id = ids(context.bus_id)

    @property
    def clock(self) -> Clock:
        return self.context.clock


class Outlet:
    """From any loop and thread."""

    def __init__(self, publisher: Publisher, config: ChannelConfig) -> None:
        self._publisher = publisher
        self.meter = Meter()
        self.configure(config)

    def configure(self, config: ChannelConfig) -> None:
        self.config = config
        # Encoding copies, so that isolation costs nothing here, and is done anyway, so that its size is known.
        self._guard = Guard(replace(config, isolate=False, max_payload=None), self._publisher.clock)
        limits = (config.max_payload, self._publisher.capabilities.max_payload)
        self._limit = min((each for each in limits if each is not None), default=sys.maxsize)

    @property
    def context(self) -> BusContext:
        return self._publisher.context

    async def publish(self, payload: Any, **options: Any) -> str | None:
        sent = self.send(payload, **options)
        return await (sent if isinstance(sent, Posted) else await sent).arrive()

    def send(self, payload: Any, **options: Any) -> Posted | Awaitable[Posted]:
        """Hand it over: now, or once the channel's limits let it in."""
        return self._post(payload, **options) if self._guard.idle else self._post_admitted(payload, **options)

    async def _post_admitted(self, payload: Any, **options: Any) -> Posted:
        began = self._publisher.clock.monotonic_ns()
        try:
            payload = await self._guard.admit(payload)
        except BaseException:
            self._count("refused", began)
            raise
        return self._post(payload, began, **options)

    def _post(self, payload: Any, began: int | None = None, **options: Any) -> Posted:
        """What is posted one after the other arrives in that order."""
        publisher = self._publisher
        if began is None:
            began = publisher.clock.monotonic_ns()
        try:
            posted = Posted(self, self.envelope(payload, **options), payload, began)
        except BaseException:
            self._count("refused", began)
            raise
        publisher.committer.submit(posted)
        return posted

    async def prepared(self, payload: Any, **options: Any) -> Envelope:
        """Let in by the channel's limits, and encoded."""
        return self.envelope(payload if self._guard.idle else await self._guard.admit(payload), **options)

    def result(self, envelope: Envelope, payload: Any, status: PublishStatus | None, reason: str) -> str | None:
        """The id, or None when it was dropped. Raises what its refusal means."""
        if status in (PublishStatus.STORED, PublishStatus.DUPLICATE):
            return envelope.id
        if status is PublishStatus.DROPPED:
            return None
        if reason:
            raise PublishError(reason)
        raise ChannelFull(envelope.channel, _refused(envelope, payload))

    def _count(self, what: str, began: int) -> None:
        self.meter.count(what, self._publisher.clock.monotonic_ns() - began)

    def envelope(
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
    ) -> Envelope:
        """Raises PublishError, Unsupported, TypeError, ValueError."""
        if not (key is correlation_id is reply_to is content_type is idempotency_key is None):
            check_texts(
                key=key,
                correlation_id=correlation_id,
                reply_to=reply_to,
                content_type=content_type,
                idempotency_key=idempotency_key,
            )
        if message_id is not None:
            check_message_id(message_id)
        if headers is not None:
            check_headers(headers)
        publisher, channel = self._publisher, self.config.name
        now = publisher.clock.time_ns()
        ttl = self.config.ttl if ttl is None else ttl
        content_type, body = publisher.codec.encode(payload, content_type)
        self._check_size(body)
        given = dict(headers) if headers else {}
        envelope = Envelope(
            id=message_id or publisher.next_id(),
            channel=channel,
            body=body,
            content_type=content_type,
            priority=self.config.priority if priority is None else _rank(priority),
            timestamp_ns=now,
            headers=given,
            key=key,
            correlation_id=correlation_id,
            reply_to=reply_to,
            expires_at_ns=None if ttl is None else min(now + _ns("ttl", ttl), MAX_NS),
            delay_ns=0 if delay is None else _ns("delay", delay),
            not_before_ns=None if not_before is None else _ns("not_before", not_before),
            dedup_key=idempotency_key,
            replay=replay_number(given) if given else 0,
        )
        check_publish(publisher.capabilities, envelope, mandatory=mandatory)
        return envelope

    def _check_size(self, body: bytes) -> None:
        if len(body) > self._limit:
            raise PayloadTooLarge(self.config.name, len(body), self._limit)


class Posted(Work):
    """A publish on its way. Of the loop that posted it, unless told otherwise."""

    __slots__ = ("_began", "_done", "_loop", "_outlet", "_payload", "_waiter", "_withdrawn")

    def __init__(self, outlet: Outlet, envelope: Envelope, payload: Any, began: int) -> None:
        super().__init__(envelope)
        self._outlet = outlet
        self._payload = payload
        self._began = began
        self._loop = asyncio._get_running_loop() or outlet.context.loop
        self._done: Done | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._withdrawn = False

    def done(self, result: Done) -> None:
        if self._loop is asyncio._get_running_loop():
            self._arrived(result)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._arrived, result)

    def _arrived(self, result: Done) -> None:
        self._done = result
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def arrive(self) -> str | None:
        """The id, or None when it was dropped. Raises PublishError, Closed. Cancelled before the transport has it,
        it has not happened.
        """
        if self._done is None:
            await self._wait()
        return self.result()

    @property
    def has_arrived(self) -> bool:
        return self._done is not None

    def result(self) -> str | None:
        """Of one that has arrived; counted when it is asked for."""
        assert self._done is not None
        what = "refused"
        try:
            result = self._result(self._done)
            what = "dropped" if result is None else "published"
        finally:
            self._outlet._count(what, self._began)
        return result

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        except BaseException:
            self._withdrawn = True
            self._outlet._count("refused", self._began)
            raise

    def withdraw(self) -> None:
        self._withdrawn = True

    def withdrawn(self) -> bool:
        """From the home loop."""
        return self._withdrawn

    def _result(self, done: Done) -> str | None:
        envelope = self.publish
        assert envelope is not None
        if done.published is PublishStatus.UNKNOWN:
            raise PublishUnknown(envelope.id) from done.error
        if done.error is not None:
            raise done.error
        return self._outlet.result(envelope, self._payload, done.published, done.reason)


def _refused(envelope: Envelope, payload: Any) -> Message:
    return Message(
        envelope.channel,
        payload,
        id=envelope.id,
        priority=envelope.priority,
        timestamp_ns=envelope.timestamp_ns,
        headers=envelope.headers,
        key=envelope.key,
        correlation_id=envelope.correlation_id,
        reply_to=envelope.reply_to,
        expires_at_ns=envelope.expires_at_ns,
        content_type=envelope.content_type,
    )


def _rank(priority: object) -> int:
    return check_priority(integer("priority", priority))


def _ns(name: str, seconds: float) -> int:
    """What is over already is over now."""
    return max(0, nanoseconds(name, seconds))
