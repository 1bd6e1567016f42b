"""The window in which a message is stored only once, and the way from an id to its message.

A key is ``i`` and what a message is known by, its idempotency key or its id; or ``r``, a number and the same for
a replay, which is a message of its own. Where this is not the id, a second row, ``f`` and the id, finds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from neuralcore.messaging.transport import Envelope
from neuralcore_transports.sqlite.store.moment import Limits, Moment
from neuralcore_transports.sqlite.store.registry import Channel
from neuralcore_transports.sqlite.store.transaction import Book

__all__ = ["Seen"]

_SEE: Final = (
    "INSERT INTO nc_seen VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET seq = excluded.seq, until = excluded.until"
    " WHERE until <= ?"
)
_START: Final = (0, "")


class Seen:
    def __init__(self, book: Book, limits: Limits) -> None:
        self._book = book
        self._window = limits.dedup_window
        self._place: tuple[int, str] = _START

    def see(self, envelope: Envelope, channel: Channel, seq: int, now: Moment) -> bool:
        """Whether it is new; it is known from here on."""
        window = channel.config.dedup_window
        until = now.mono + (self._window if window is None else round(window * 1e9))
        key = _key(envelope)
        if self._book.execute(_SEE, (channel.id, key, seq, until, now.mono)).rowcount == 0:
            return False
        if key != f"i{envelope.id}":
            self._book.execute(
                "INSERT OR REPLACE INTO nc_seen VALUES (?, ?, ?, ?)", (channel.id, f"f{envelope.id}", seq, until)
            )
        return True

    def forget(self, envelope: Envelope, channel: Channel) -> None:
        """It was not stored after all."""
        self._book.execute("DELETE FROM nc_seen WHERE channel = ? AND key = ?", (channel.id, _key(envelope)))

    def find(self, id: str, channels: Sequence[Channel]) -> int | None:
        """The number of the last message with this id that is kept."""
        for channel in channels:
            (found,) = self._book.execute(
                "SELECT max(m.seq) FROM nc_seen s JOIN nc_message m ON m.seq = s.seq AND m.channel = s.channel"
                " WHERE s.channel = ? AND s.key IN (?, ?)"
                " AND CASE WHEN json_valid(m.attributes) THEN json_extract(m.attributes, '$.id') END = ?",
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


def _key(envelope: Envelope) -> str:
    name = envelope.dedup_key or envelope.id
    return f"r{envelope.replay} {name}" if envelope.replay else f"i{name}"
