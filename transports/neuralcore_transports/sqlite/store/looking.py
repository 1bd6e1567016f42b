"""Looking in without taking anything."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any, Final

from neuralcore.messaging.transport import Cursor, Page, StoreStats
from neuralcore_transports.sqlite.store.messages import PRIORITIES
from neuralcore_transports.sqlite.store.moment import Moment
from neuralcore_transports.sqlite.store.rows import COLUMNS, Corrupt, envelope_of
from neuralcore_transports.sqlite.store.seen import Seen
from neuralcore_transports.sqlite.store.subscribers import place_after, resolve
from neuralcore_transports.sqlite.store.transaction import Book

__all__ = ["browse", "stats"]

_EVER: Final = 1 << 62
_PRIORITIES: Final = f"{PRIORITIES} SELECT priority FROM p WHERE priority IS NOT NULL"


def browse(book: Book, seen: Seen, name: str, start: Cursor, limit: int, now: Moment) -> Page:
    """Damaged messages are left out; who consumes them reports them. Raises ValueError for a lost cursor."""
    channel = book.registry.channels.get(name)
    if channel is None or start == "new":
        return Page((), None)
    first = resolve(book, seen, start, [channel])
    retention = channel.config.retention
    oldest = -_EVER if retention is None or retention.age is None else now.mono - round(retention.age * 1e9)
    rows: list[Any] = []
    for (priority,) in book.execute(_PRIORITIES, (channel.id, channel.id)).fetchall():
        rows += book.rows(
            f"SELECT {COLUMNS} FROM nc_message m WHERE channel = ? AND priority = ? AND seq >= ?"
            " AND (state IN (0, 3) OR mono > ?) ORDER BY seq LIMIT ?",
            (channel.id, priority, first, oldest, limit + 1),
        )
    rows.sort(key=itemgetter(0))
    page, more = rows[:limit], len(rows) > limit
    envelopes = []
    for row in page:
        try:
            envelopes.append(envelope_of(row, name))
        except Corrupt:
            continue
    return Page(envelopes, place_after(page[-1][0]) if more and page else None)


def stats(book: Book) -> Mapping[str, StoreStats]:
    registry = book.registry
    in_flight: dict[int, int] = dict(
        book.execute(
            "SELECT position, count(*) FROM nc_entry INDEXED BY nc_entry_leased WHERE state = 2 GROUP BY position"
        )
    )
    unsettled: dict[int, int] = dict(book.execute("SELECT id, entries FROM nc_position"))
    found = {}
    for id, opened, stored, rejected in book.execute(
        "SELECT id, open, open + kept - waiting, rejected FROM nc_channel"
    ).fetchall():
        channel = registry.channel(id)
        if channel is None:
            continue
        found[channel.name] = StoreStats(
            depth=opened,
            in_flight=sum(in_flight.get(p.id, 0) for p in registry.positions.values() if p.channel is channel),
            stored=stored,
            lag={p.subscriber.name: unsettled[p.id] for p in channel.positions if p.subscriber.name is not None},
            rejected_settlements=rejected,
        )
    return found
