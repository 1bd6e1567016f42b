"""Between envelopes and the fields of stream entries: CloudEvents 1.0 attributes and headers, flat.

docs/wire-format.md is the reference, with test vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from neuralcore.messaging.transport import Envelope
from neuralcore_transports.cloudevents import header_name, plain_name, read_time, written_time

__all__ = ["DATA", "DUE", "envelope_of", "fields_of"]

DATA: Final = "data"
DUE: Final = "ncdue"
"""Of a delayed entry: the server's milliseconds before which nobody gets it. The server writes it."""

_OWN: Final = frozenset({DATA, DUE})


def fields_of(envelope: Envelope, source: str) -> list[str | bytes]:
    """Names and values in turn."""
    fields: list[str | bytes] = [
        "ce_specversion", "1.0",
        "ce_id", envelope.id,
        "ce_source", source,
        "ce_type", envelope.channel,
        "ce_time", written_time(envelope.timestamp_ns),
        "content-type", envelope.content_type,
    ]  # fmt: skip
    if envelope.key is not None:
        fields += ("ce_partitionkey", envelope.key)
    if envelope.correlation_id is not None:
        fields += ("ce_nccorrelationid", envelope.correlation_id)
    if envelope.reply_to is not None:
        fields += ("ce_ncreplyto", envelope.reply_to)
    if envelope.expires_at_ns is not None:
        fields += ("ce_expirytime", written_time(envelope.expires_at_ns))
    if envelope.headers:
        for name, value in envelope.headers.items():
            fields += (header_name(name, _OWN), value)
    fields += (DATA, envelope.body)
    return fields


def envelope_of(channel: str, priority: int, entry: str, fields: Sequence[bytes]) -> Envelope:
    """An entry that somebody else has written may be no message: then an attribute of the envelope is not what it
    must be, which its reader finds out.
    """
    parts = iter(fields)
    found = dict(zip(parts, parts, strict=True))
    take = found.pop
    body, id, time = take(b"data", None), take(b"ce_id", None), take(b"ce_time", None)
    if body is None and id is None:
        return _foreign(channel, priority, entry, fields)
    content_type, expires = take(b"content-type", None), take(b"ce_expirytime", None)
    key, correlation_id, reply_to = (
        take(b"ce_partitionkey", None),
        take(b"ce_nccorrelationid", None),
        take(b"ce_ncreplyto", None),
    )
    for name in _UNREAD:
        take(name, None)
    return Envelope(
        id=entry if id is None else _text(id),
        channel=channel,
        body=body,  # type: ignore[arg-type]
        content_type="application/octet-stream" if content_type is None else _text(content_type),
        priority=priority,
        timestamp_ns=_stored_ns(entry) if time is None else read_time(_text(time)),
        headers={plain_name(_text(name)): _text(value) for name, value in found.items()} if found else _NONE,
        key=None if key is None else _text(key),
        correlation_id=None if correlation_id is None else _text(correlation_id),
        reply_to=None if reply_to is None else _text(reply_to),
        expires_at_ns=None if expires is None else read_time(_text(expires)),
    )


_UNREAD: Final = (b"ce_specversion", b"ce_source", b"ce_type", b"ncdue")
_NONE: Final[dict[str, str]] = {}


def _stored_ns(entry: str) -> int:
    return int(entry.partition("-")[0]) * 1_000_000


def _foreign(channel: str, priority: int, entry: str, fields: Sequence[bytes]) -> Envelope:
    """An entry of fields that are no message of anybody's: its fields are the payload, as a JSON object."""
    found = {
        _text(name): _text(value) for name, value in zip(fields[::2], fields[1::2], strict=True) if name != b"ncdue"
    }
    whole = all(isinstance(value, str) for pair in found.items() for value in pair)
    return Envelope(
        id=entry,
        channel=channel,
        body=msgspec.json.encode(found) if whole else None,  # type: ignore[arg-type]
        priority=priority,
        timestamp_ns=_stored_ns(entry),
    )


def _text(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
