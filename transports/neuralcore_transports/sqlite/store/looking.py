"""Looking in without taking anything."""

from __future__ import annotations

from collections.abc import Mapping

from neuralcore.messaging.transport import Cursor, Page, StoreStats
from neuralcore_transports.sqlite.store.moment import Moment
from neuralcore_transports.sqlite.store.parties import place_after, resolve
from neuralcore_transports.sqlite.store.rows import COLUMNS, Corrupt, envelope_of
from neuralcore_transports.sqlite.store.transaction import Book

__all__ = ["browse", "stats"]


def browse(book: Book, name: str, start: Cursor, limit: int, now: Moment) -> Page:
    """Damaged messages are left out; who consumes them reports them. Raises ValueError for a cursor that leads nowhere."""
    channel = book.registry.channels.get(name)
    wanted = None if channel is None else resolve(book, start, [channel])
    if channel is None or wanted is None:
        return Page((), None)
    where, parameters = wanted
    retention = channel.config.retention
    oldest = 0 if retention is None or retention.age is None else now.mono - round(retention.age * 1e9)
    rows = book.rows(
        f"SELECT {COLUMNS} FROM nc_message m WHERE channel = ? AND {where} AND (state = 0 OR stored_mono > ?)"  # noqa: S608
        " ORDER BY seq LIMIT ?",
        (channel.id, *parameters, oldest, limit + 1),
    )
    page, more = rows[:limit], len(rows) > limit
    envelopes = []
    for row in page:
        try:
            envelopes.append(envelope_of(row, name))
        except Corrupt:
            continue
    return Page(envelopes, place_after(page[-1][0]) if more and page else None)


def stats(book: Book) -> Mapping[str, StoreStats]:
    in_flight: dict[int, int] = {}
    for position, count in book.execute("SELECT position, count(*) FROM nc_entry WHERE state = 2 GROUP BY position"):
        in_flight[position] = count
    entries = dict(book.execute("SELECT id, entries FROM nc_position"))
    found = {}
    for id, open, kept, rejected in book.execute("SELECT id, open, kept, rejected FROM nc_channel").fetchall():
        channel = book.registry.channel(id)
        if channel is None:
            continue
        waiting = 0 if channel.positions else _waiting(book, id)
        found[channel.name] = StoreStats(
            depth=open,
            in_flight=sum(in_flight.get(p.id, 0) for p in book.registry.positions.values() if p.channel is channel),
            stored=open - waiting + kept,
            lag={p.party.name: entries.get(p.id, 0) for p in channel.positions if p.party.name is not None},
            rejected_settlements=rejected,
        )
    return found


def _waiting(book: Book, channel: int) -> int:
    row = book.execute("SELECT count(*) FROM nc_message WHERE channel = ? AND state = 1", (channel,)).fetchone()
    return int(row[0])
