"""Where reading starts, and reading without settling."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from neuralcore.messaging.transport import Cursor, Envelope, Page
from neuralcore_transports.redis.client import Client
from neuralcore_transports.redis.entries import envelope_of

__all__ = ["Places"]

_MARK: Final = "@"
_CHUNK: Final = 500

_Id = tuple[int, int]
_Read = tuple[_Id, int, Sequence[bytes]]


class Places:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def start(self, cursor: Cursor | None, channels: Sequence[str]) -> str:
        """As the scripts want it: '' to be decided there, ``beginning``, ``new``, or the rank of an entry.

        Raises ValueError for an id that is not kept and for a time without a zone.
        """
        if cursor is None:
            return ""
        if isinstance(cursor, str) and cursor in ("beginning", "new"):
            return cursor
        return _rank(await self._first(cursor, channels))

    async def _first(self, cursor: str | datetime, channels: Sequence[str]) -> _Id:
        if isinstance(cursor, datetime):
            if cursor.tzinfo is None:
                raise ValueError(f"a cursor's time needs a zone, as in datetime.now(timezone.utc); got {cursor!r}")
            return -(-round(cursor.timestamp() * 1_000_000) // 1000), 0
        if cursor.startswith(_MARK):
            ms, separator, number = cursor[1:].partition("-")
            if separator and ms.isdecimal() and number.isdecimal():
                return int(ms), int(number)
        for channel in channels:
            found = await self._find(channel, cursor)
            if found is not None:
                return found
        raise ValueError(f"no message {cursor!r} is kept; start at 'beginning', 'new', or at a time")

    async def _find(self, channel: str, id: str) -> _Id | None:
        """Where a message is: at once if it is recent, else by looking through everything."""
        base, wanted = self._client.layout.base(channel), id.encode()
        since = 0
        for turn in range(3):
            at = await self._call(base, "HGET", f"{base}:ids:{turn}", id)
            since = max(since, int(at or 0))
        for priority in await self.bands(channel):
            async for entry, fields in self._entries(channel, priority, (since, 0)):
                if wanted in fields and fields[fields.index(wanted) - 1] == b"ce_id":
                    return entry
                if wanted == b"%d-%d" % entry and b"ce_id" not in fields:
                    return entry
        return None

    async def bands(self, channel: str) -> list[int]:
        base = self._client.layout.base(channel)
        found = await self._call(base, "HGET", f"{base}:meta", "bands")
        return [int(band) for band in (found or b"").split()]

    async def _entries(self, channel: str, priority: int, since: _Id) -> AsyncIterator[tuple[_Id, Sequence[bytes]]]:
        first = "{}-{}".format(*since)
        while True:
            chunk = await self._range(channel, priority, first, _CHUNK)
            for entry, fields in chunk:
                yield entry, fields
            if len(chunk) < _CHUNK:
                return
            first = "({}-{}".format(*chunk[-1][0])

    async def _range(self, channel: str, priority: int, first: str, count: int) -> list[tuple[_Id, Sequence[bytes]]]:
        base, key = self._client.layout.base(channel), self._client.layout.stream(channel, priority)
        found = await self._call(base, "XRANGE", key, first, "+", "COUNT", count)
        return [(_parsed(entry), fields) for entry, fields in found or ()]

    async def browse(self, channel: str, start: Cursor, limit: int) -> Page:
        """Raises ValueError as ``start`` does."""
        if start == "new":
            return Page((), None)
        known = await self.bands(channel)
        if not known:
            return Page((), None)
        first: _Id = (0, 0) if start == "beginning" else await self._first(start, [channel])
        bands = [
            [
                (entry, band, fields)
                for entry, fields in await self._range(channel, band, "{}-{}".format(*first), limit + 1)
            ]
            for band in known
        ]
        found: Iterator[_Read] = heapq.merge(*bands, key=lambda read: read[0])
        page = [read for read, _ in zip(found, range(limit + 1), strict=False)]
        ms, number = page[limit - 1][0] if len(page) > limit else (0, 0)
        return Page(
            [_envelope(channel, *read) for read in page[:limit]],
            f"{_MARK}{ms}-{number + 1}" if len(page) > limit else None,
        )

    async def _call(self, base: str, *command: str | bytes | int) -> Any:
        return await self._client.call(f"{base}:meta", *command)


def _envelope(channel: str, entry: _Id, band: int, fields: Sequence[bytes]) -> Envelope:
    return envelope_of(channel, band, "{}-{}".format(*entry), fields)


def _parsed(entry: bytes) -> _Id:
    ms, _, number = entry.partition(b"-")
    return int(ms), int(number)


def _rank(entry: _Id) -> str:
    ms, number = entry
    return f"{ms:020}{number:020}"
