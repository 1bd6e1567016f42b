"""What a transaction has stored itself: whoever has nothing else to take may take it without reading it back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from neuralcore.messaging.transport import Envelope
from neuralcore_transports.sqlite.store.registry import Channel, Position
from neuralcore_transports.sqlite.store.transaction import Book

__all__ = ["Fresh", "Stored"]

Stored = tuple[int, int, Envelope]
"""Priority and number, which are its place in the order, and the message."""


class Fresh:
    """Of one transaction at a time; which positions are drained is known from one to the next, for an epoch.

    Consumers get the publisher's own envelopes, and share them: nobody changes their headers.
    """

    def __init__(self, book: Book) -> None:
        self._book = book
        self._pending: defaultdict[int, list[Stored]] = defaultdict(list)
        """By position, what it has not taken."""
        self._drained: set[int] = set()
        """Positions that had nothing more to take when they were last looked at."""
        self._epoch = book.epoch

    def add(self, channel: Channel, seq: int, envelope: Envelope) -> None:
        """For all its positions."""
        for position in channel.positions:
            self._pending[position.id].append((envelope.priority, seq, envelope))

    def pending(self, position: Position) -> list[Stored]:
        """In the order in which it is to be handed out."""
        return sorted(self._pending[position.id])

    def keep(self, position: Position, pending: list[Stored]) -> None:
        """It has taken the others."""
        self._pending[position.id] = pending

    def only(self, positions: Collection[Position]) -> list[Position] | None:
        """Those of them that have something to take; None when it may be more than what is fresh."""
        if self._epoch != self._book.epoch:
            self._epoch = self._book.epoch
            self._drained.clear()
        if not all(position.id in self._drained for position in positions):
            return None
        return [position for position in positions if self._pending.get(position.id)]

    def search(self, position: Position) -> None:
        """It is about to be looked through, with what is fresh."""
        self._pending.pop(position.id, None)
        self._drained.discard(position.id)

    def drained(self, position: Position) -> None:
        """It has taken everything."""
        self._drained.add(position.id)

    def end(self) -> None:
        """Of the transaction."""
        for position, pending in self._pending.items():
            if pending:
                self._drained.discard(position)
        self._pending.clear()
