"""Between messages and envelopes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neuralcore._core import Message
from neuralcore._options import MAX_NS
from neuralcore.messaging import headers
from neuralcore.messaging.codec import Codec
from neuralcore.messaging.priority import Priority
from neuralcore.messaging.settle import DeadLetter
from neuralcore.messaging.transport import Delivery, Envelope

__all__ = ["decode", "letter_envelope", "repaired", "replay_number", "to_message"]


def to_message(delivery: Delivery, envelope: Envelope | None = None) -> Message:
    """The message of a delivery; its payload is the body until ``decode``.

    Raises whatever an envelope brings about that is none: one that somebody else has written.
    """
    envelope = delivery.envelope if envelope is None else envelope
    _check_body(envelope.body, envelope.content_type)
    return Message(
        envelope.channel,
        envelope.body,
        id=envelope.id,
        priority=envelope.priority,
        timestamp_ns=envelope.timestamp_ns,
        headers=envelope.headers or None,
        key=envelope.key,
        correlation_id=envelope.correlation_id,
        reply_to=envelope.reply_to,
        expires_at_ns=envelope.expires_at_ns,
        content_type=envelope.content_type,
        attempt=delivery.attempt,
        delivery=delivery,
    )


def _check_body(body: object, content_type: object) -> None:
    if not (isinstance(body, bytes) and isinstance(content_type, str)):
        raise TypeError("the body of an envelope must be bytes, and its content type a str")


def repaired(envelope: Any, channel: str) -> Envelope:
    """An envelope made of what can be used of one that is none. ``channel``: where it came from, if it does not say."""
    body = envelope.body
    given = envelope.headers
    return Envelope(
        id=_text(envelope.id) or "",
        channel=envelope.channel if isinstance(envelope.channel, str) else channel,
        body=body if isinstance(body, bytes) else str(body).encode(),
        content_type=_text(envelope.content_type) or "application/octet-stream",
        priority=envelope.priority if _between(envelope.priority, 0, 255) else Priority.NORMAL,
        timestamp_ns=envelope.timestamp_ns if _between(envelope.timestamp_ns, 0, MAX_NS) else 0,
        headers={str(name): str(value) for name, value in given.items()} if isinstance(given, Mapping) else {},
        key=_text(envelope.key),
        correlation_id=_text(envelope.correlation_id),
        reply_to=_text(envelope.reply_to),
    )


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else repr(value)


def _between(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and least <= value <= most


def decode(codec: Codec, message: Message, delivery: Delivery) -> None:
    """Give it its payload, unless an earlier handler's worker has. Raises DecodeError."""
    envelope = delivery.envelope
    if message.payload is envelope.body:
        message._set_payload(codec.decode(envelope.content_type, envelope.body))


def letter_envelope(letter: DeadLetter, original: Envelope, now_ns: int) -> Envelope:
    """The dead letter on the wire: the body is the original's, byte for byte, whether it can be decoded or not."""
    return Envelope(
        id=letter.id,
        channel=letter.channel,
        body=original.body,
        content_type=original.content_type,
        priority=letter.priority,
        timestamp_ns=now_ns,
        headers=letter.headers,
        key=letter.key,
        correlation_id=letter.correlation_id,
    )


def replay_number(given: Mapping[str, str]) -> int:
    """Which replay of a message this is, by its header."""
    text = given.get(headers.REPLAY, "0")
    return int(text) if text.isdecimal() else 0
