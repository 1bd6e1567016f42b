"""Where rows go that are not what was written: nobody gets them, nothing waits for them, they can be looked at."""

from __future__ import annotations

from collections.abc import Callable

from neuralcore_transports.sqlite.store.entries import Entries
from neuralcore_transports.sqlite.store.messages import Messages
from neuralcore_transports.sqlite.store.moment import Moment
from neuralcore_transports.sqlite.store.registry import Position
from neuralcore_transports.sqlite.store.transaction import Book

__all__ = ["Quarantine"]


class Quarantine:
    def __init__(self, book: Book, messages: Messages, entries: Entries, tell: Callable[[str, str], None]) -> None:
        """``tell`` is called with the channel and what was found."""
        self._book = book
        self._messages = messages
        self._entries = entries
        self._tell = tell

    def put(self, position: Position, seq: int, reason: str, now: Moment) -> None:
        """Take a message, which this position was about to have, from every one, and set its row aside."""
        channel = position.channel
        row = self._book.execute("SELECT priority FROM nc_message WHERE seq = ?", (seq,)).fetchone()
        self._entries.withdraw(channel, seq, row[0] if row and isinstance(row[0], int) else 0, position.id)
        content = "\n".join(
            repr(tuple(row)) for row in self._book.rows("SELECT * FROM nc_message WHERE seq = ?", (seq,))
        )
        self._book.execute(
            "INSERT INTO nc_quarantine (seq, channel, found, reason, content) VALUES (?, ?, ?, ?, ?)",
            (seq, channel.name, now.wall, reason, content.encode(errors="surrogateescape")),
        )
        self._messages.delete(channel, seq)
        self._tell(channel.name, f"message number {seq} was damaged and is in quarantine: {reason}")
