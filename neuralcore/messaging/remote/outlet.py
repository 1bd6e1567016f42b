"""The publish path of one channel: its defaults, its limits, its counters."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from neuralcore._core import Message
from neuralcore._options import MAX_NS, check_headers, check_message_id, check_texts, integer, nanoseconds
from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.codec import Codec
from neuralcore.messaging.context import BusContext
from neuralcore.messaging.errors import ChannelFull, PayloadTooLarge, PublishError, PublishUnknown
from neuralcore.messaging.paths import Guard
from neuralcore.messaging.priority import check_priority
from neuralcore.messaging.remote.committer import Committer
from neuralcore.messaging.remote.meter import Meter
from neuralcore.messaging.remote.needs import check_publish, with_bands
from neuralcore.messaging.remote.wire import replay_number
from neuralcore.messaging.remote.work import Awaited, Done
from neuralcore.messaging.transport import Capabilities, Envelope, PublishStatus

__all__ = ["Outlet", "Posted", "Publisher", "ids"]


def ids(prefix: str) -> Callable[[], str]:
    """32 hexadecimal digits: the bus's own 16 and a counter."""
    numbers = itertools.count((int(prefix, 16) << 64) + 1)
    return lambda: next(numbers).to_bytes(16, "big").hex()


class Publisher:
    """What the outlets of one bus share."""

    def __init__(self, context: BusContext, committer: Committer, capabilities: Capabilities, codec: Codec) -> None:
        self.context = context
        self.clock = context.clock
        self.committer = committer
        self.capabilities = capabilities
        self.codec = codec
        self.next_id = ids(context.bus_id)


class Outlet:
    """From any loop and thread."""

    def __init__(self, publisher: Publisher, config: ChannelConfig) -> None:
        self.publisher = publisher
        self.meter = Meter()
        self.configure(config)

    def configure(self, config: ChannelConfig) -> None:
        self.config = config
        self._priority = int(config.priority)
        self._capabilities = with_bands(self.publisher.capabilities, config)
        # Encoding copies, so that isolation costs nothing here, and is done anyway, so that its size is known.
        self._guard = Guard(replace(config, isolate=False, max_payload=None), self.publisher.clock)
        limits = (config.max_payload, self.publisher.capabilities.max_payload)
        self._limit = min((each for each in limits if each is not None), default=sys.maxsize)

    @property
    def idle(self) -> bool:
        """The channel has no limits that could make a publish wait."""
        return self._guard.idle

    async def publish(self, payload: Any, **options: Any) -> str | None:
        posted = self._post(payload, **options) if self._guard.idle else await self.post_admitted(payload, **options)
        return await posted.arrive()

    async def post_admitted(self, payload: Any, **options: Any) -> Posted:
        """Hand it over once the channel's limits let it in."""
        began = self.publisher.clock.monotonic_ns()
        try:
            payload = await self._guard.admit(payload)
        except BaseException:
            self.count("refused", began)
            raise
        return self._post(payload, began, **options)

    def _post(self, payload: Any, began: int | None = None, **options: Any) -> Posted:
        """What is posted one after the other arrives in that order."""
        publisher = self.publisher
        if began is None:
            began = publisher.clock.monotonic_ns()
        try:
            posted = Posted(self, self.envelope(payload, **options), payload, began)
        except BaseException:
            self.count("refused", began)
            raise
        publisher.committer.submit(posted)
        return posted

    async def prepared(self, payload: Any, **options: Any) -> Envelope:
        """Let in by the channel's limits, and encoded."""
        return self.envelope(payload if self._guard.idle else await self._guard.admit(payload), **options)

    def result(self, envelope: Envelope, payload: Any, done: Done) -> str | None:
        """The id, or None when it was dropped. Raises what its refusal means, or what nothing is known for."""
        status = done.published
        if status is PublishStatus.UNKNOWN:
            raise PublishUnknown(envelope.id) from done.error
        if done.error is not None:
            raise done.error
        if status is PublishStatus.STORED or status is PublishStatus.DUPLICATE:
            return envelope.id
        if status is PublishStatus.DROPPED:
            return None
        if done.reason:
            raise PublishError(done.reason)
        raise ChannelFull(envelope.channel, _refused(envelope, payload))

    def count(self, what: str, began: int, amount: int = 1) -> None:
        """``published``, ``dropped`` or ``refused``, each since ``began``."""
        self.meter.count(what, self.publisher.clock.monotonic_ns() - began, amount)

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
        publisher, channel = self.publisher, self.config.name
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
            priority=self._priority if priority is None else _rank(priority),
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
        check_publish(self._capabilities, envelope, mandatory=mandatory)
        return envelope

    def _check_size(self, body: bytes) -> None:
        if len(body) > self._limit:
            raise PayloadTooLarge(self.config.name, len(body), self._limit)


class Posted(Awaited[Done]):
    """A publish on its way."""

    __slots__ = ("_began", "_outlet", "_payload")

    def __init__(self, outlet: Outlet, envelope: Envelope, payload: Any, began: int) -> None:
        super().__init__(outlet.publisher.context, envelope)
        self._outlet = outlet
        self._payload = payload
        self._began = began

    def done(self, result: Done) -> None:
        self._tell(result)

    def withdraw(self) -> None:
        """Nobody is going to await it."""
        self._withdrawn = True
        self._outlet.count("refused", self._began)

    async def arrive(self) -> str | None:
        """The id, or None when it was dropped. Raises PublishError, Closed."""
        assert self.publish is not None
        what = "refused"
        try:
            done = await self.arrival()
            result = self._outlet.result(self.publish, self._payload, done)
            what = "dropped" if result is None else "published"
        finally:
            self._outlet.count(what, self._began)
        return result


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
