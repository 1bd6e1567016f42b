"""Between envelopes and rows of ``message``: the columns, and the checksum over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from zlib import crc32

import msgspec

from neuralcore.messaging.transport import Envelope
from neuralcore_transports.sqlite.store.moment import Moment

__all__ = ["COLUMNS", "INSERT", "Corrupt", "decode_reply", "encode_reply", "envelope_of", "row_of"]

_CHECKED: Final = (
    "seq", "channel", "id", "priority", "timestamp", "content_type", "headers", "key", "correlation_id", "reply_to",
    "expires", "delay", "not_before", "dedup_key", "replay", "stored_mono", "stored_wall",
)  # fmt: skip
COLUMNS: Final = ", ".join(f"m.{name}" for name in (*_CHECKED, "checksum", "body"))
"""What ``envelope_of`` wants to see, in a query where the table is called m."""
INSERT: Final = (
    f"INSERT INTO nc_message ({', '.join(_CHECKED)}, checksum, body, state, evictable)"  # noqa: S608 - constants
    f" VALUES ({', '.join('?' * (len(_CHECKED) + 4))})"
)

_attributes = msgspec.msgpack.Encoder()
_headers_to_text = msgspec.json.Encoder(order="deterministic")
_text_to_headers = msgspec.json.Decoder(dict[str, str])
_reply_encoder = msgspec.msgpack.Encoder()
_reply_decoder = msgspec.msgpack.Decoder(Envelope)


class Corrupt(Exception):
    """A row is not what was written."""


def row_of(envelope: Envelope, seq: int, channel: int, now: Moment, state: int, evictable: bool) -> tuple[Any, ...]:
    """For ``INSERT``."""
    headers = envelope.headers
    checked = (
        seq,
        channel,
        envelope.id,
        envelope.priority,
        envelope.timestamp_ns,
        envelope.content_type,
        _headers_to_text.encode(headers).decode() if headers else None,
        envelope.key,
        envelope.correlation_id,
        envelope.reply_to,
        envelope.expires_at_ns,
        envelope.delay_ns,
        envelope.not_before_ns,
        envelope.dedup_key,
        envelope.replay,
        now.mono,
        now.wall,
    )
    return (*checked, _checksum(checked, envelope.body), envelope.body, state, evictable)


def envelope_of(row: Sequence[Any], channel: str) -> Envelope:
    """Of a row of COLUMNS. Raises Corrupt."""
    checked, checksum, body = row[:-2], row[-2], row[-1]
    try:
        right = _checksum(checked, body) == checksum
    except (TypeError, ValueError):  # a body that is no bytes any more, a text that is no UTF-8
        right = False
    if not right:
        raise Corrupt("its checksum is wrong")
    return Envelope(
        id=checked[2],
        channel=channel,
        priority=checked[3],
        timestamp_ns=checked[4],
        content_type=checked[5],
        headers={} if checked[6] is None else _text_to_headers.decode(checked[6]),
        key=checked[7],
        correlation_id=checked[8],
        reply_to=checked[9],
        expires_at_ns=checked[10],
        delay_ns=checked[11],
        not_before_ns=checked[12],
        dedup_key=checked[13],
        replay=checked[14],
        body=body,
    )


def _checksum(checked: Sequence[Any], body: bytes) -> int:
    return crc32(body, crc32(_attributes.encode(checked)))


def encode_reply(envelope: Envelope) -> bytes:
    return _reply_encoder.encode(envelope)


def decode_reply(row: bytes) -> Envelope:
    """Raises Corrupt."""
    try:
        return _reply_decoder.decode(row)
    except msgspec.MsgspecError as error:
        raise Corrupt(str(error)) from error
