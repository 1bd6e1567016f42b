"""Where reading starts: from a Cursor to the records it wants."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from neuralcore.messaging.transport import Cursor
from neuralcore.testing.memory.channel import Channel
from neuralcore.testing.memory.records import Record

__all__ = ["after", "resolve"]

_MARK = "@"


def after(record: Record) -> str:
    """A cursor for what follows this record; unlike an id it outlives the record."""
    return f"{_MARK}{record.seq + 1}"


def resolve(cursor: Cursor, channels: Iterable[Channel]) -> Callable[[Record], bool]:
    """Which records a cursor wants; ids are looked up in these channels.

    Raises ValueError for an id that is not kept and for a time without a zone.
    """
    if isinstance(cursor, datetime):
        if cursor.tzinfo is None:
            raise ValueError(f"a cursor's time needs a zone, as in datetime.now(timezone.utc); got {cursor!r}")
        wall = round(cursor.timestamp() * 1e9)
        return lambda record: record.stored.wall >= wall
    if cursor == "beginning":
        return lambda record: True
    if cursor == "new":
        return lambda record: False
    first = _seq(cursor, channels)
    return lambda record: record.seq >= first


def _seq(id: str, channels: Iterable[Channel]) -> int:
    for channel in channels:
        if id in channel.ids:
            return channel.ids[id].seq
    if id.startswith(_MARK) and id[1:].isdecimal():
        return int(id[1:])
    raise ValueError(f"no message {id!r} is kept; start at 'beginning', 'new', or at a time")
