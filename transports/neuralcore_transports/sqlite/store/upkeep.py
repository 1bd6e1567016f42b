"""What is done a little at a time, so that it never blocks anybody for long."""

from __future__ import annotations

from neuralcore_transports.sqlite.store.messages import Messages
from neuralcore_transports.sqlite.store.moment import Moment
from neuralcore_transports.sqlite.store.transaction import Book

__all__ = ["Upkeep"]

_START = (0, 0, "", 0)


class Upkeep:
    def __init__(self, book: Book, messages: Messages) -> None:
        self._book = book
        self._messages = messages
        self._place: tuple[int, int, str, int] = _START

    def tidy(self, now: Moment, most: int) -> int:
        """Trim what retention does not keep, and forget what is outside the window of deduplication; how many."""
        return self._trim(now, most) + self._forget_seen(now, most)

    def _trim(self, now: Moment, most: int) -> int:
        done = 0
        for channel in self._book.registry.channels.values():
            if done >= most:
                break
            done += self._messages.trim(channel, now, most - done)
        return done

    def _forget_seen(self, now: Moment, most: int) -> int:
        """Go once more round the table, which is in no order of time, from where the last call left it."""
        rows = self._book.execute(
            "SELECT channel, kind, key, replay, until <= ? AND NOT EXISTS (SELECT 1 FROM nc_message WHERE nc_message.seq = nc_seen.seq)"
            " FROM nc_seen WHERE (channel, kind, key, replay) > (?, ?, ?, ?) ORDER BY 1, 2, 3, 4 LIMIT ?",
            (now.mono, *self._place, most),
        ).fetchall()
        self._place = rows[-1][:4] if len(rows) == most else _START
        old = [row[:4] for row in rows if row[4]]
        self._book.executemany("DELETE FROM nc_seen WHERE channel = ? AND kind = ? AND key = ? AND replay = ?", old)
        return len(old)
