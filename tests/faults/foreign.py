"""What others may have written into a store, and what is too much: rows 27 and 28, for transports that keep headers."""

from __future__ import annotations

import resource
from pathlib import Path

__all__ = ["FOREIGN", "PAYLOADS", "rss"]

PAYLOADS = {
    "no JSON": ("application/json", b"{"),
    "deep JSON": ("application/json", b"[" * 200_000 + b"]" * 200_000),
    "a long number": ("application/json", b"9" * 400_000),
    "no UTF-8": ("application/json", b'"\xff"'),
    "no MessagePack": ("application/msgpack", b"\xc1"),
    "a false length": ("application/msgpack", b"\xdd\xff\xff\xff\xff"),
    "a false length of bytes": ("application/msgpack", b"\xc6\xff\xff\xff\xff"),
    "deep MessagePack": ("application/msgpack", b"\x91" * 200_000 + b"\xc0"),
    "an array of a false shape": ("application/x-neuralcore-ndarray", b"\x93NUMPY" + b"\xff" * 40),
    "nothing": ("application/json", b""),
}
FOREIGN: dict[str, dict[bytes, bytes]] = {
    "an id that is no text": {b"ce_id": b"\xff\xfe", b"data": b"1", b"content-type": b"application/json"},
    "no id": {b"data": b"1", b"content-type": b"application/json"},
    "an empty id": {b"ce_id": b"", b"data": b"1", b"content-type": b"application/json"},
    "a very long id": {b"ce_id": b"x" * 100_000, b"data": b"1", b"content-type": b"application/json"},
    "no data": {b"ce_id": b"f-1", b"content-type": b"application/json"},
    "no message at all": {b"temperature": b"21", b"room": b"kitchen"},
    "no message and no text": {b"\xff": b"\xfe"},
    "empty names": {b"": b""},
    "a content type that is no text": {b"ce_id": b"f-2", b"data": b"1", b"content-type": b"\xff"},
    "a time that is none": {b"ce_id": b"f-3", b"data": b"1", b"ce_time": b"yesterday"},
    "a time that is no text": {b"ce_id": b"f-4", b"data": b"1", b"ce_time": b"\xff"},
    "a time out of all bounds": {b"ce_id": b"f-5", b"data": b"1", b"ce_time": b"999999-13-45T99:99:99Z"},
    "an expiry that is none": {b"ce_id": b"f-6", b"data": b"1", b"ce_expirytime": b"never"},
    "an expiry that is no text": {b"ce_id": b"f-7", b"data": b"1", b"ce_expirytime": b"\xff\x00"},
    "a key that is no text": {b"ce_id": b"f-8", b"data": b"1", b"ce_partitionkey": b"\xff"},
    "an empty key": {b"ce_id": b"f-9", b"data": b"1", b"ce_partitionkey": b""},
    "a header that is no text": {b"ce_id": b"f-10", b"data": b"1", b"ce_x": b"\xff"},
    "a header's name that is no text": {b"ce_id": b"f-11", b"data": b"1", b"\xff": b"x"},
    "a reply address that is no text": {b"ce_id": b"f-12", b"data": b"1", b"ce_ncreplyto": b"\xff"},
    "a correlation that is no text": {b"ce_id": b"f-13", b"data": b"1", b"ce_nccorrelationid": b"\xff"},
    "a due time that is none": {b"ce_id": b"f-14", b"data": b"1", b"ncdue": b"soon"},
    "a due time that is not a number": {b"ce_id": b"f-15", b"data": b"1", b"ncdue": b"nan"},
    "a negative due time": {b"ce_id": b"f-16", b"data": b"1", b"ncdue": b"-1"},
    "a broken trace": {b"ce_id": b"f-17", b"data": b"1", b"ce_traceparent": b"zz"},
    "dead letter headers that are none": {b"ce_id": b"f-18", b"data": b"1", b"nc-dlq-attempts": b"many"},
    "a priority as a field": {b"ce_id": b"f-19", b"data": b"1", b"priority": b"nan"},
}


def rss() -> int:
    """Bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
