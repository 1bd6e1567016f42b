"""One delivery of a message."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from contextlib import AbstractAsyncContextManager
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, final

from neuralcore._options import check_integers, check_required, check_texts
from neuralcore.fallback.extras import NO_EXTRAS, Extras

if TYPE_CHECKING:
    from neuralcore.fallback.mailbox import Mailbox
    from neuralcore.fallback.settler import Settler

__all__ = ["IN_FLIGHT", "LOST", "QUEUED", "SETTLED", "Message", "Published"]

QUEUED: Final = 0
SETTLED: Final = 1
IN_FLIGHT: Final = 2
LOST: Final = 4

_flags = RLock()


@final
class Message:
    """One delivery of a message, immutable to handlers.

    Built by the core when it reaches a handler; built directly for messages that a transport fetched, and in tests.
    """

    __slots__ = (
        "_channel",
        "_extras",
        "_id",
        "_mailbox",
        "_payload",
        "_rank",
        "_sequence",
        "_stamp",
        "_state",
        "_timestamp_ns",
    )
    _sequence: int

    def __init__(
        self,
        channel: str,
        payload: Any,
        *,
        id: str,
        priority: int = 50,
        timestamp_ns: int = 0,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        expires_at_ns: int | None = None,
        content_type: str | None = None,
        attempt: int = 1,
        delivery: object = None,
    ) -> None:
        check_required(id=id, channel=channel)
        check_texts(
            key=key,
            correlation_id=correlation_id,
            reply_to=reply_to,
            content_type=content_type,
        )
        check_integers(priority=priority, timestamp_ns=timestamp_ns, expires_at_ns=expires_at_ns, attempt=attempt)
        self._id = id
        self._channel = channel
        self._payload = payload
        self._rank = priority
        self._timestamp_ns = timestamp_ns
        self._extras: Extras | None = NO_EXTRAS
        """None only for a plain publish, as the hot paths make it; then it has no stamp either."""
        self._mailbox: Mailbox | None = None
        self._state = QUEUED
        self._stamp = 0
        given = (headers, key, correlation_id, reply_to, expires_at_ns, content_type, delivery)
        if attempt != 1 or given.count(None) < len(given):
            self._extras = Extras(
                headers=headers,
                key=key,
                correlation_id=correlation_id,
                reply_to=reply_to,
                expires_at_ns=expires_at_ns,
                content_type=content_type,
                attempt=attempt,
                delivery=delivery,
            )

    @property
    def id(self) -> str:
        return self._id

    @property
    def channel(self) -> str:
        return self._channel

    @property
    def payload(self) -> Any:
        return self._payload

    @property
    def priority(self) -> int:
        return self._rank

    @property
    def timestamp(self) -> float:
        """When it was published: wall clock, seconds."""
        return self._timestamp_ns / 1e9

    @property
    def timestamp_ns(self) -> int:
        return self._timestamp_ns

    @property
    def headers(self) -> Mapping[str, str]:
        """The publisher's headers, read-only; an empty mapping when there are none."""
        return (self._extras or NO_EXTRAS).headers

    @property
    def key(self) -> str | None:
        return (self._extras or NO_EXTRAS).key

    @property
    def correlation_id(self) -> str | None:
        return (self._extras or NO_EXTRAS).correlation_id

    @property
    def reply_to(self) -> str | None:
        return (self._extras or NO_EXTRAS).reply_to

    @property
    def expires_at(self) -> float | None:
        """Wall clock, seconds."""
        ns = (self._extras or NO_EXTRAS).expires_at_ns
        return None if ns is None else ns / 1e9

    @property
    def expires_at_ns(self) -> int | None:
        return (self._extras or NO_EXTRAS).expires_at_ns

    @property
    def content_type(self) -> str | None:
        return (self._extras or NO_EXTRAS).content_type

    @property
    def attempt(self) -> int:
        """1 on the first delivery."""
        return (self._extras or NO_EXTRAS).attempt

    @property
    def delivery(self) -> object:
        """What the transport attached (its lease); None on the native transport."""
        return (self._extras or NO_EXTRAS).delivery

    @property
    def settled(self) -> bool:
        return bool(self._state & SETTLED)

    @property
    def lease_lost(self) -> bool:
        """True once another consumer may have the message: stop working on it."""
        return bool(self._state & LOST)

    def reply(self, payload: Any) -> Awaitable[None]:
        """Answer a request. Raises NotARequest when the message has no reply_to."""
        return self._settler().reply(self, payload)

    def ack(self) -> Awaitable[None]:
        """Settle as done. Raises AlreadySettled."""
        return self._settler().ack(self)

    def nack(self, delay: float | None = None) -> Awaitable[None]:
        """Count a failed attempt and have it delivered again.

        After ``delay`` seconds or the subscription's back-off.
        """
        return self._settler().nack(self, delay)

    def reject(self, reason: str = "") -> Awaitable[None]:
        """Dead-letter it now."""
        return self._settler().reject(self, reason)

    def release(self) -> Awaitable[None]:
        """Give it back untouched: another consumer may have it, no attempt is counted."""
        return self._settler().release(self)

    def transaction(self, connection: Any | None = None) -> AbstractAsyncContextManager[Any]:
        """Settle it as done in a transaction."""
        return self._settler().transaction(self, connection)

    def __repr__(self) -> str:
        return (
            f"<Message {self._id} on {self._channel!r}: priority {self._rank}, attempt {self.attempt}"
            f"{', settled' if self.settled else ''}>"
        )

    def _settle(self) -> bool:
        """Mark it settled; False when it already was. For settlers."""
        with _flags:
            if self._state & SETTLED:
                return False
            self._state |= SETTLED
            return True

    def _lose_lease(self) -> None:
        with _flags:
            self._state |= LOST

    def _set_payload(self, payload: Any) -> None:
        """For the decoder of a transport's messages, before any handler has seen it."""
        self._payload = payload

    def _settler(self) -> Settler:
        if self._mailbox is None:
            raise RuntimeError(
                f"message {self._id} was not delivered by a mailbox, so there is nothing to settle it with"
            )
        return self._mailbox.settler

    def _copy(self, extras: Extras | None) -> Message:
        """Another delivery of it, unsettled."""
        copy: Message = Published()
        copy._id = self._id
        copy._channel = self._channel
        copy._payload = self._payload
        copy._rank = self._rank
        copy._timestamp_ns = self._timestamp_ns
        copy._extras = extras
        copy._mailbox = self._mailbox
        copy._state = QUEUED
        copy._stamp = 0
        return copy


class Published(Message):  # type: ignore[misc]
    """A message whose maker fills the slots: running an ``__init__`` in Python costs more than all of them."""

    __slots__ = ()
    __init__ = object.__init__
