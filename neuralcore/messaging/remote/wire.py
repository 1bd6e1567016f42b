"""Between messages and envelopes."""

from __future__ import annotations

from collections.abc import Mapping

from neuralcore._core import Message
from neuralcore.messaging import headers
from neuralcore.messaging.codec import Codec
from neuralcore.messaging.settle import DeadLetter
from neuralcore.messaging.transport import Delivery, Envelope

__all__ = ["decode", "letter_envelope", "replay_number", "to_message"]


def to_message(delivery: Delivery) -> Message:
    """The message of a delivery; its payload is the body until ``decode``."""
    envelope = delivery.envelope
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
