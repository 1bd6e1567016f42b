"""Between envelopes and Kafka's records: CloudEvents 1.0, binary mode. docs/wire-format.md is the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from confluent_kafka import KafkaError
from msgspec.structs import replace

from neuralcore.messaging.priority import Priority
from neuralcore.messaging.transport import Envelope
from neuralcore_transports.cloudevents import header_name, plain_name, read_time, written_time

__all__ = ["DUE", "Header", "Record", "dedup_id", "due_in", "envelope_of", "headers_of", "opened"]

DUE: Final = "ncdue"
"""Of a delayed message: the wall clock's milliseconds before which nobody gets it."""
_DEDUP: Final = "ce_ncdedupkey"
_REPLAY: Final = "\0"
"""No id that anybody gives begins with it."""
_OWN: Final = frozenset({DUE})

Header = tuple[str, str | bytes | None]


class Record(Protocol):
    """The client library's, once it has been read."""

    def __len__(self) -> int:
        """Bytes of its value."""

    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> Sequence[tuple[str, bytes | None]] | None: ...
    def timestamp(self) -> tuple[int, int]: ...
    def error(self) -> KafkaError | None: ...


def headers_of(envelope: Envelope, source: str, now_ns: int) -> list[Header]:
    """``now_ns``: the wall clock, which delays are counted from."""
    headers: list[Header] = [
        ("ce_specversion", "1.0"),
        ("ce_id", envelope.id),
        ("ce_source", source),
        ("ce_type", envelope.channel),
        ("ce_time", written_time(envelope.timestamp_ns)),
        ("content-type", envelope.content_type),
    ]
    add = headers.append
    if envelope.key is not None:
        add(("ce_partitionkey", envelope.key))
    if envelope.priority != Priority.NORMAL:
        add(("ce_ncpriority", str(envelope.priority)))
    if envelope.correlation_id is not None:
        add(("ce_nccorrelationid", envelope.correlation_id))
    if envelope.reply_to is not None:
        add(("ce_ncreplyto", envelope.reply_to))
    if envelope.expires_at_ns is not None:
        add(("ce_expirytime", written_time(envelope.expires_at_ns)))
    if envelope.dedup_key is not None:
        add((_DEDUP, envelope.dedup_key))
    if envelope.replay:
        add(("ce_ncreplay", str(envelope.replay)))
    if envelope.delay_ns or envelope.not_before_ns is not None:
        due = max(now_ns + envelope.delay_ns if envelope.delay_ns else 0, envelope.not_before_ns or 0)
        add((DUE, str(-(-due // 1_000_000))))
    if envelope.headers:
        headers += [(header_name(name, _OWN), value) for name, value in envelope.headers.items()]
    return headers


def envelope_of(record: Record, channel: str) -> Envelope:
    return opened(record, channel)[0]


def opened(record: Record, channel: str) -> tuple[Envelope, int]:
    """And the wall clock's nanoseconds before which nobody gets it; 0 for one that is not delayed.

    A record that somebody else has written may be no message: then an attribute of the envelope is not what it must
    be, which its reader finds out. One without attributes is raw bytes.
    """
    id = time = content_type = None
    others: dict[str, bytes | None] = {}
    for name, value in record.headers() or ():
        if name == "ce_id":
            id = value
        elif name == "ce_time":
            time = value
        elif name == "content-type":
            content_type = value
        elif name not in _UNREAD:
            others[name] = value
    body, key = record.value(), record.key()
    envelope = Envelope(
        id=f"{record.partition()}-{record.offset()}" if id is None else _text(id),
        channel=channel,
        body=b"" if body is None else body,
        content_type="application/octet-stream" if content_type is None else _text(content_type),
        timestamp_ns=max(0, record.timestamp()[1]) * 1_000_000 if time is None else read_time(_text(time)),
    )
    return _completed(envelope, others, key) if others or key is not None else (envelope, 0)


def _completed(envelope: Envelope, others: dict[str, bytes | None], key: bytes | None) -> tuple[Envelope, int]:
    """With what most messages have not."""
    attributes = {} if key is None else {"key": _text(key)}
    for header, (name, read) in _READ.items():
        if (value := others.pop(header, None)) is not None:
            attributes[name] = read(value)
    due_ms = _number(others.pop(DUE, None))
    if others:
        attributes["headers"] = {
            plain_name(name): "" if value is None else _text(value) for name, value in others.items()
        }
    return replace(envelope, **attributes), due_ms * 1_000_000 if isinstance(due_ms, int) else 0


_UNREAD: Final = frozenset({"ce_specversion", "ce_source", "ce_type"})
_DIGITS: Final = 18


def due_in(record: Record, due_ns: int, now_ns: int) -> int:
    """Nanoseconds until then, by the wall clock; never more than when it was stored."""
    stored = record.timestamp()[1] * 1_000_000
    left = due_ns - now_ns
    return max(0, left if stored <= 0 else min(left, due_ns - stored))


def dedup_id(envelope: Envelope) -> str:
    """Two messages of one channel that have the same are one."""
    known = envelope.dedup_key or envelope.id
    return f"{_REPLAY}{envelope.replay}{_REPLAY}{known}" if envelope.replay else known


def _text(value: Any) -> Any:
    try:
        return value.decode()
    except (UnicodeDecodeError, AttributeError):
        return value


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, bytes) and value.isdigit() and len(value) < _DIGITS else value


_READ: Final[dict[str, tuple[str, Callable[[Any], Any]]]] = {
    "ce_partitionkey": ("key", _text),
    "ce_ncpriority": ("priority", _number),
    "ce_nccorrelationid": ("correlation_id", _text),
    "ce_ncreplyto": ("reply_to", _text),
    "ce_expirytime": ("expires_at_ns", lambda value: read_time(_text(value))),
    _DEDUP: ("dedup_key", _text),
    "ce_ncreplay": ("replay", _number),
}
