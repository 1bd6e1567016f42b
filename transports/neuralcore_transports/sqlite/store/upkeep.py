"""What is done a little at a time, so that it never blocks anybody for long."""

from __future__ import annotations

from neuralcore_transports.sqlite.store.messages import Messages
from neuralcore_transports.sqlite.store.moment import Moment
from neuralcore_transports.sqlite.store.seen import Seen
from neuralcore_transports.sqlite.store.transaction import Book

__all__ = ["Upkeep"]


class Upkeep:
    def __init__(self, book: Book, messages: Messages, seen: Seen) -> None:
        self._book = book
        self._messages = messages
        self._seen = seen

    def tidy(self, now: Moment, most: int) -> int:
        """Forget up to ``most`` of what nobody wants any more, of what retention does not keep, and of what is outside
        the window of deduplication; how many.
        """
        done = 0
        for channel in list(self._book.registry.channels.values()):
            done += self._messages.collect_some(channel, now, max(0, most - done))
            done += self._messages.trim(channel, now, max(0, most - done))
        return done + self._seen.sweep(now, most)
