"""CloudEvents 1.0, binary mode, as Kafka's headers and Redis's fields have it. docs/wire-format.md is the reference.

Attributes are called ``ce_<name>``; the W3C trace headers and the users' own keep their names, but for those that
would be taken for something else.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

__all__ = ["ATTRIBUTES", "header_name", "plain_name", "read_time", "written_time"]

ATTRIBUTES: Final = {
    b"ce_id": "id",
    b"ce_time": "time",
    b"content-type": "content_type",
    b"ce_partitionkey": "key",
    b"ce_nccorrelationid": "correlation_id",
    b"ce_ncreplyto": "reply_to",
    b"ce_expirytime": "expires",
}
"""What becomes an attribute of an envelope, and which."""

_ESCAPE: Final = "nc_header_"
_SECOND: Final = 1_000_000_000
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - its text has no zone
_FIRST: Final = -62_135_596_800 * _SECOND
_LAST: Final = 253_402_300_800 * _SECOND - 1
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)")


def header_name(name: str, own: Collection[str] = ()) -> str:
    """``own``: names that the transport uses itself."""
    if name.startswith(("ce_", _ESCAPE)) or name == "content-type" or name in own:
        return _ESCAPE + name
    return name


def plain_name(name: Any) -> Any:
    """The header's own name. What is no text stays what it is."""
    return name.removeprefix(_ESCAPE) if isinstance(name, str) else name


def written_time(ns: int) -> str:
    """RFC 3339, to the nanosecond; the nearest one that it can say, which ends with the year 9999."""
    seconds, rest = divmod(min(max(ns, _FIRST), _LAST), _SECOND)
    return f"{_written_second(seconds)}.{rest:09}Z"


@lru_cache(maxsize=64)
def _written_second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()


def read_time(text: Any) -> Any:
    """Nanoseconds since the epoch; what is no time stays what it is."""
    if not isinstance(text, str):
        return text
    if len(text) == 30 and text[19] == "." and text[29] == "Z" and text[20:29].isdecimal():  # as we write it
        second, fraction = _read_second(text[:19] + "Z"), text[20:29]
    else:
        found = _TIME.fullmatch(text)
        if found is None:
            return text
        second, fraction = _read_second(found[1] + found[3]), (found[2] or "0").ljust(9, "0")
    return text if second is None else second * _SECOND + int(fraction)


@lru_cache(maxsize=64)
def _read_second(text: str) -> int | None:
    if _TIME.fullmatch(text) is None:
        return None
    second, zone = text[:19].upper(), text[19:].upper()
    try:
        return int(datetime.fromisoformat(second + ("+00:00" if zone == "Z" else zone)).timestamp())
    except ValueError:
        return None
