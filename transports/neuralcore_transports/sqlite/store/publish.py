"""Storing what is published: known or new, room or none, and an entry for everyone who wants it."""

from __future__ import annotations

from typing import Any, Final

from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.errors import InvalidChannelName
from neuralcore.messaging.names import validate_channel
from neuralcore.messaging.transport import Envelope, PublishStatus
from neuralcore_transports.sqlite.store.entries import Entries
from neuralcore_transports.sqlite.store.messages import BESIDE, PRIORITIES, Messages
from neuralcore_transports.sqlite.store.moment import Moment
from neuralcore_transports.sqlite.store.parties import Parties
from neuralcore_transports.sqlite.store.registry import Channel
from neuralcore_transports.sqlite.store.rows import INSERT, row_of
from neuralcore_transports.sqlite.store.schema import MessageState
from neuralcore_transports.sqlite.store.seen import Seen
from neuralcore_transports.sqlite.store.transaction import Book

__all__ = ["Publisher"]


_LEAST_URGENT_FIRST: Final = f"{PRIORITIES} SELECT priority FROM p WHERE priority >= ? ORDER BY priority DESC"


class Publisher:
    """Of one transaction at a time. ``flush`` before anything looks at what was published."""

    def __init__(self, book: Book, messages: Messages, entries: Entries, parties: Parties, seen: Seen) -> None:
        self._book = book
        self._messages = messages
        self._entries = entries
        self._parties = parties
        self._seen = seen
        self._rows: list[tuple[Any, ...]] = []
        self._placed: dict[Channel, int] = {}
        """Channels with delayed ones among them, and the number of the first."""

    def publish(self, envelope: Envelope, now: Moment, index: int, reasons: dict[int, str]) -> PublishStatus:
        channel = self._book.registry.channels.get(envelope.channel)
        if channel is None:
            try:
                validate_channel(envelope.channel, internal=True)
            except InvalidChannelName as error:
                reasons[index] = str(error)
                return PublishStatus.REFUSED
            self.flush(now)
            channel = self._parties.create(ChannelConfig(envelope.channel), now)
        return self._store(envelope, channel, now)

    def _store(self, envelope: Envelope, channel: Channel, now: Moment) -> PublishStatus:
        capacity = channel.config.capacity
        if capacity is not None and self._messages.open(channel.id) >= capacity:
            if self._seen.knows(envelope, channel, now):
                return PublishStatus.DUPLICATE
            refusal = self._make_room(channel, capacity, envelope.priority, now)
            if refusal is not None:
                return refusal
        seq = self._book.number()
        if not self._seen.see(envelope, channel, seq, now):
            return PublishStatus.DUPLICATE
        self._add(envelope, channel, seq, now)
        return PublishStatus.STORED

    def _add(self, envelope: Envelope, channel: Channel, seq: int, now: Moment) -> None:
        state, waits = MessageState.OPEN, not channel.positions and channel.config.retention is not None
        if waits:
            state = MessageState.WAITING
        elif envelope.delay_ns or envelope.not_before_ns is not None:
            state = MessageState.PLACED
            self._placed.setdefault(channel, seq)
        self._messages.count(channel.id, opened=1, waiting=waits, kept=waits, size=len(envelope.body) * waits)
        for position in channel.positions:
            self._messages.count_entries(position.id, 1)
        self._rows.append(row_of(envelope, seq, channel.id, now, state))

    def flush(self, now: Moment) -> None:
        """Write what was published since."""
        if self._rows:
            self._book.executemany(INSERT, self._rows)
            for channel, first in self._placed.items():
                self._entries.place(channel, first, now, channel.positions)
            self.forget()

    def forget(self) -> None:
        """The transaction was undone."""
        self._rows.clear()
        self._placed.clear()

    # Room or none

    def _make_room(self, channel: Channel, capacity: int, priority: int, now: Moment) -> PublishStatus | None:
        """In a channel that is full; None when there is room now."""
        if self._trimmed(channel, capacity, now):
            return None
        overflow = channel.config.overflow or "block"
        if overflow == "block":
            return PublishStatus.FULL
        if overflow == "reject":
            return PublishStatus.REFUSED
        if overflow == "drop_old" and self._evict(channel, priority, now):
            return None
        return PublishStatus.DROPPED

    def _trimmed(self, channel: Channel, capacity: int, now: Moment) -> bool:
        """Whether there is room once retention has taken what waits for nobody in particular."""
        if channel.config.retention is None or channel.has_group:
            return False
        self.flush(now)
        return self._messages.trim(channel, now, BESIDE) > 0 and self._messages.open(channel.id) < capacity

    def _evict(self, channel: Channel, priority: int, now: Moment) -> bool:
        """Drop the least urgent message and of those the oldest, for one that is at least as urgent.

        What is in flight or delayed keeps its slot.
        """
        self.flush(now)
        for (rank,) in self._book.execute(_LEAST_URGENT_FIRST, (channel.id, channel.id, priority)).fetchall():
            victim = self._book.execute(
                "SELECT seq FROM nc_message m WHERE channel = :channel AND priority = :priority AND state != 2"
                " AND NOT EXISTS (SELECT 1 FROM nc_entry e WHERE e.seq = m.seq AND NOT (e.state IN (1, 4)"
                " OR (e.state = 3 AND e.due <= :mono AND ifnull(e.not_before, 0) <= :wall)"
                " OR (e.state = 5 AND e.not_before <= :wall)))"
                " AND (EXISTS (SELECT 1 FROM nc_entry e WHERE e.seq = m.seq)"
                " OR (mono + ifnull(json_extract(attributes, '$.delay'), 0) <= :mono"
                " AND ifnull(json_extract(attributes, '$.not_before'), 0) <= :wall)) ORDER BY seq LIMIT 1",
                {"channel": channel.id, "priority": rank, "mono": now.mono, "wall": now.wall},
            ).fetchone()
            if victim is not None:
                self._entries.withdraw(channel, victim[0], rank)
                self._messages.delete(channel, victim[0])
                return True
        return False
