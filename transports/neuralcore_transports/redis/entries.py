"""Between envelopes and the fields of stream entries: CloudEvents 1.0 attributes and headers, flat.

docs/wire-format.md is the reference, with test vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from neuralcore.messaging.transport import Envelope
from neuralcore_transports.cloudevents import ATTRIBUTES, header_name, plain_name, read_time, written_time

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
    found: dict[str, Any] = {}
    headers: dict[str, str] = {}
    body: Any = None
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        if name == b"data":
            body = value
        elif name in ATTRIBUTES:
            found[ATTRIBUTES[name]] = _text(value)
        elif not name.startswith(b"ce_") and name != b"ncdue":
            headers[plain_name(_text(name))] = _text(value)
        elif name.startswith(b"ce_") and name not in _KNOWN:
            headers[_text(name)] = _text(value)
    if body is None and "id" not in found:
        return _foreign(channel, priority, entry, fields)
    return Envelope(
        id=found.get("id", entry),
        channel=channel,
        body=body,
        content_type=found.get("content_type", "application/octet-stream"),
        priority=priority,
        timestamp_ns=read_time(found["time"]) if "time" in found else int(entry.partition("-")[0]) * 1_000_000,
        headers=headers,
        key=found.get("key"),
        correlation_id=found.get("correlation_id"),
        reply_to=found.get("reply_to"),
        expires_at_ns=read_time(found["expires"]) if "expires" in found else None,
    )


_KNOWN: Final = frozenset({b"ce_specversion", b"ce_source", b"ce_type"})


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
        timestamp_ns=int(entry.partition("-")[0]) * 1_000_000,
    )


def _text(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
