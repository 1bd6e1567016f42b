"""Where replies arrive: bounded, forgotten with their owner."""

from __future__ import annotations

from neuralcore.messaging.transport import Envelope, PublishStatus
from neuralcore_transports.sqlite.store.rows import Corrupt, decode_reply, encode_reply
from neuralcore_transports.sqlite.store.transaction import Book

__all__ = ["Inboxes"]


class Inboxes:
    def __init__(self, book: Book, capacity: int) -> None:
        self._book = book
        self._capacity = capacity

    def open(self, address: str, owner: int) -> None:
        """Empty, also where one of that address was open already."""
        self.close(address)
        self._book.execute("INSERT INTO nc_inbox VALUES (?, ?, 0)", (address, owner))

    def put(self, envelope: Envelope) -> PublishStatus:
        taken = self._book.execute(
            "UPDATE nc_inbox SET waiting = waiting + 1 WHERE address = ? AND waiting < ?",
            (envelope.channel, self._capacity),
        ).rowcount
        if not taken:
            return PublishStatus.DROPPED
        self._book.execute(
            "INSERT INTO nc_reply (address, envelope) VALUES (?, ?)", (envelope.channel, encode_reply(envelope))
        )
        return PublishStatus.STORED

    def anything(self, address: str) -> bool:
        """Whether there is something to take, or the inbox is gone."""
        row = self._book.execute("SELECT waiting FROM nc_inbox WHERE address = ?", (address,)).fetchone()
        return row is None or row[0] > 0

    def take(self, address: str) -> list[Envelope] | None:
        """All there is; None when the address is not known any more. What was damaged is left out."""
        if not self._book.execute("UPDATE nc_inbox SET waiting = 0 WHERE address = ?", (address,)).rowcount:
            return None
        rows = self._book.execute("DELETE FROM nc_reply WHERE address = ? RETURNING number, envelope", (address,))
        replies = []
        for _, row in sorted(rows):
            try:
                replies.append(decode_reply(row))
            except Corrupt:
                continue  # a reply is not durable, and its requester has a time-out
        return replies

    def close(self, address: str) -> None:
        self._book.execute("DELETE FROM nc_inbox WHERE address = ?", (address,))
        self._book.execute("DELETE FROM nc_reply WHERE address = ?", (address,))

    def close_all(self, owner: int) -> None:
        for (address,) in self._book.execute("SELECT address FROM nc_inbox WHERE owner = ?", (owner,)).fetchall():
            self.close(address)
