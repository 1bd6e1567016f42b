"""Between envelopes and rows of ``nc_message``: the columns, and the checksum over them."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any, Final
from zlib import crc32

import msgspec

from neuralcore.messaging.transport import Envelope
from neuralcore_transports.sqlite.store.moment import Moment

__all__ = [
    "COLUMNS",
    "INSERT",
    "Attributes",
    "Corrupt",
    "attribute",
    "decode_reply",
    "encode_reply",
    "envelope_of",
    "row_of",
]

COLUMNS: Final = "m.seq, m.channel, m.priority, m.mono, m.wall, m.checksum, m.attributes, m.body"
"""What ``envelope_of`` wants to see, in a query where the table is called m."""
INSERT: Final = "INSERT INTO nc_message (seq, channel, priority, mono, wall, checksum, attributes, body, state)"


def attribute(name: str, prefix: str = "") -> str:
    """SQL for one of a message's attributes: NULL where it has none, and where the text is damaged, which would be an
    error of the whole statement. Whoever fetches the message sees that.
    """
    text = f"{prefix}attributes"
    return f"(CASE WHEN json_valid({text}) THEN json_extract({text}, '$.{name}') END)"


class Attributes(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a message has beside its channel, its priority and its body: a flat JSON object, and its headers in it."""

    id: str
    timestamp: int = 0
    content_type: str = "application/json"
    headers: dict[str, str] | None = None
    key: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expires: int | None = None
    delay: int = 0
    not_before: int | None = None
    dedup_key: str | None = None
    replay: int = 0


_to_text = msgspec.json.Encoder().encode
_from_text = msgspec.json.Decoder(Attributes).decode
_numbers = Struct("<qqqqq").pack
_reply_encoder = msgspec.msgpack.Encoder()
_reply_decoder = msgspec.msgpack.Decoder(Envelope)


class Corrupt(Exception):
    """A row is not what was written."""


def row_of(envelope: Envelope, seq: int, channel: int, now: Moment, state: int) -> tuple[Any, ...]:
    """For ``INSERT``."""
    headers = envelope.headers
    attributes = _to_text(
        Attributes(
            envelope.id,
            envelope.timestamp_ns,
            envelope.content_type,
            dict(headers) if headers else None,
            envelope.key,
            envelope.correlation_id,
            envelope.reply_to,
            envelope.expires_at_ns,
            envelope.delay_ns,
            envelope.not_before_ns,
            envelope.dedup_key,
            envelope.replay,
        )
    )
    body, priority = envelope.body, envelope.priority
    checksum = crc32(body, crc32(attributes, crc32(_numbers(seq, channel, priority, now.mono, now.wall))))
    return seq, channel, priority, now.mono, now.wall, checksum, attributes.decode(), body, state


def envelope_of(row: Sequence[Any], channel: str) -> Envelope:
    """Of a row of COLUMNS. Raises Corrupt."""
    seq, channel_id, priority, mono, wall, checksum, attributes, body = row
    try:
        text = attributes.encode()
        right = checksum == crc32(body, crc32(text, crc32(_numbers(seq, channel_id, priority, mono, wall))))
    except Exception as error:  # a type that is not what was written, a text that is no UTF-8, a number out of range
        raise Corrupt(f"it cannot be read ({type(error).__name__})") from error
    if not right:
        raise Corrupt("its checksum is wrong")
    try:
        found = _from_text(text)
    except msgspec.MsgspecError as error:  # by a writer that knows the checksum and not the attributes
        raise Corrupt(f"its attributes cannot be understood ({error})") from error
    return Envelope(
        id=found.id,
        channel=channel,
        body=body,
        content_type=found.content_type,
        priority=priority,
        timestamp_ns=found.timestamp,
        headers=found.headers or {},
        key=found.key,
        correlation_id=found.correlation_id,
        reply_to=found.reply_to,
        expires_at_ns=found.expires,
        delay_ns=found.delay,
        not_before_ns=found.not_before,
        dedup_key=found.dedup_key,
        replay=found.replay,
    )


def encode_reply(envelope: Envelope) -> bytes:
    return _reply_encoder.encode(envelope)


def decode_reply(row: bytes) -> Envelope:
    """Raises Corrupt."""
    try:
        return _reply_decoder.decode(row)
    except msgspec.MsgspecError as error:
        raise Corrupt(str(error)) from error
