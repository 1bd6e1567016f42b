"""The window in which a message is stored only once, and the way from an id to its message.

A key is ``i`` and what a message is known by, its idempotency key or its id; or ``r``, a number and the same for
a replay, which is a message of its own. Where this is not the id, a second row, ``f`` and the id, finds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from neuralcore.messaging.transport import Envelope
from neuralcore_transports.sqlite.store import bulk
from neuralcore_transports.sqlite.store.moment import Limits, Moment
from neuralcore_transports.sqlite.store.registry import Channel
from neuralcore_transports.sqlite.store.rows import attribute
from neuralcore_transports.sqlite.store.transaction import Book

__all__ = ["Coming", "Seen", "key_of"]

_UNLESS_KNOWN: Final = " ON CONFLICT DO UPDATE SET seq = excluded.seq, until = excluded.until WHERE until <= ?"
_START: Final = (0, "")


class Coming(NamedTuple):
    """One that is about to be stored."""

    place: int
    """Among those that are published together."""
    envelope: Envelope
    channel: Channel
    seq: int
    key: str


class Seen:
    def __init__(self, book: Book, limits: Limits) -> None:
        self._book = book
        self._window = limits.dedup_window
        self._place: tuple[int, str] = _START

    def see(self, coming: Sequence[Coming], now: Moment) -> set[int]:
        """The numbers of those that are not new; all are known from here on. No two of them have one key."""
        until = {channel: now.mono + self._window_of(channel) for channel in {each.channel for each in coming}}
        rows = [(channel.id, key, seq, until[channel]) for _, _, channel, seq, key in coming]
        known: set[int] = set()
        if bulk.insert(self._book.execute, "INSERT INTO nc_seen", rows, _UNLESS_KNOWN, now.mono) < len(rows):
            known = {seq for channel, key, seq, _ in rows if self._number(channel, key) != seq}
        for _, envelope, channel, seq, key in coming:
            named = envelope.dedup_key or envelope.replay
            if named and key != f"i{envelope.id}" and seq not in known:
                self._book.execute(
                    "INSERT OR REPLACE INTO nc_seen VALUES (?, ?, ?, ?)",
                    (channel.id, f"f{envelope.id}", seq, until[channel]),
                )
        return known

    def _window_of(self, channel: Channel) -> int:
        window = channel.config.dedup_window
        return self._window if window is None else round(window * 1e9)

    def _number(self, channel: int, key: str) -> int | None:
        row = self._book.execute("SELECT seq FROM nc_seen WHERE channel = ? AND key = ?", (channel, key)).fetchone()
        return None if row is None else int(row[0])

    def knows(self, key: str, channel: Channel, now: Moment) -> bool:
        """Whether it would not be new."""
        query = "SELECT 1 FROM nc_seen WHERE channel = ? AND key = ? AND until > ?"
        return self._book.execute(query, (channel.id, key, now.mono)).fetchone() is not None

    def find(self, id: str, channels: Sequence[Channel]) -> int | None:
        """The number of the last message with this id that is kept."""
        for channel in channels:
            (found,) = self._book.execute(
                "SELECT max(m.seq) FROM nc_seen s JOIN nc_message m ON m.seq = s.seq AND m.channel = s.channel"
                " WHERE s.channel = ? AND s.key IN (?, ?)"
                f" AND {attribute('id', 'm.')} = ?",
                (channel.id, f"i{id}", f"f{id}", id),
            ).fetchone()
            if found is not None:
                return int(found)
        return None

    def sweep(self, now: Moment, most: int) -> int:
        """Go on round the table, which is in no order of time, from where the last call left it; how many went."""
        rows = self._book.execute(
            "SELECT channel, key, until <= ? AND NOT EXISTS (SELECT 1 FROM nc_message m WHERE m.seq = nc_seen.seq)"
            " FROM nc_seen WHERE (channel, key) > (?, ?) ORDER BY channel, key LIMIT ?",
            (now.mono, *self._place, most),
        ).fetchall()
        self._place = rows[-1][:2] if len(rows) == most else _START
        old = [row[:2] for row in rows if row[2]]
        self._book.executemany("DELETE FROM nc_seen WHERE channel = ? AND key = ?", old)
        return len(old)


def key_of(envelope: Envelope) -> str:
    """What it is known by."""
    name = envelope.dedup_key or envelope.id
    return f"r{envelope.replay} {name}" if envelope.replay else f"i{name}"
