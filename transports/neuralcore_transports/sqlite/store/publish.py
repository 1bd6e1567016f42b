"""Storing what is published: known or new, room or none, and an entry for everyone who wants it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.errors import InvalidChannelName
from neuralcore.messaging.names import validate_channel
from neuralcore.messaging.transport import Envelope, PublishStatus
from neuralcore_transports.sqlite.store.entries import Entries
from neuralcore_transports.sqlite.store.messages import Messages
from neuralcore_transports.sqlite.store.moment import Limits, Moment
from neuralcore_transports.sqlite.store.parties import Parties
from neuralcore_transports.sqlite.store.registry import Channel
from neuralcore_transports.sqlite.store.rows import INSERT, row_of
from neuralcore_transports.sqlite.store.schema import MessageState
from neuralcore_transports.sqlite.store.transaction import Book

__all__ = ["Publisher"]

BY_ID, BY_KEY, ONLY_TO_FIND = 0, 1, 2

_SEE: Final = (
    "INSERT INTO nc_seen VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET seq = excluded.seq, until = excluded.until"
    " WHERE until <= ?"
)


class Publisher:
    """Of one transaction at a time. ``flush`` before anything looks at what was published."""

    def __init__(self, book: Book, messages: Messages, entries: Entries, parties: Parties, limits: Limits) -> None:
        self._book = book
        self._messages = messages
        self._entries = entries
        self._parties = parties
        self._limits = limits
        self._rows: list[tuple[Any, ...]] = []
        self._claimed: defaultdict[Channel, int] = defaultdict(int)

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
        seq = self._book.number()
        if not self._see(envelope, channel, seq, now):
            return PublishStatus.DUPLICATE
        if channel.config.capacity is not None:
            refusal = self._make_room(channel, channel.config.capacity, envelope.priority, now)
            if refusal is not None:
                self._forget(envelope, channel)
                return refusal
        self._add(envelope, channel, seq, now)
        return PublishStatus.STORED

    def _add(self, envelope: Envelope, channel: Channel, seq: int, now: Moment) -> None:
        if channel.positions:
            state = MessageState.OPEN
            self._claimed[channel] += 1
            self._messages.count(channel.id, open=1)
        else:
            state = MessageState.WAITING
            self._messages.count(channel.id, open=1, kept=1, bytes=len(envelope.body))
        self._rows.append(row_of(envelope, seq, channel.id, now, state, channel.evictable))

    def flush(self, now: Moment) -> None:
        """Write what was published since."""
        if not self._rows:
            return
        self._book.executemany(INSERT, self._rows)
        if self._claimed:
            self._entries.enter(self._rows[0][0], now)
            for channel, count in self._claimed.items():
                for position in channel.positions:
                    self._messages.count_entries(position.id, count)
        self._rows.clear()
        self._claimed.clear()

    def forget(self) -> None:
        """The transaction was undone."""
        self._rows.clear()
        self._claimed.clear()

    # Known or new

    def _see(self, envelope: Envelope, channel: Channel, seq: int, now: Moment) -> bool:
        """Whether it is new; it is known from here on."""
        window = channel.config.dedup_window
        until = now.mono + (self._limits.dedup_window if window is None else round(window * 1e9))
        kind, key = (BY_ID, envelope.id) if envelope.dedup_key is None else (BY_KEY, envelope.dedup_key)
        seen = self._book.execute(_SEE, (channel.id, kind, key, envelope.replay, seq, until, now.mono))
        if seen.rowcount == 0:
            return False
        if kind == BY_KEY:
            self._book.execute(
                "INSERT OR REPLACE INTO nc_seen VALUES (?, ?, ?, ?, ?, ?)",
                (channel.id, ONLY_TO_FIND, envelope.id, envelope.replay, seq, until),
            )
        return True

    def _forget(self, envelope: Envelope, channel: Channel) -> None:
        kind, key = (BY_ID, envelope.id) if envelope.dedup_key is None else (BY_KEY, envelope.dedup_key)
        self._book.execute(
            "DELETE FROM nc_seen WHERE channel = ? AND kind = ? AND key = ? AND replay = ?",
            (channel.id, kind, key, envelope.replay),
        )

    # Room or none

    def _make_room(self, channel: Channel, capacity: int, priority: int, now: Moment) -> PublishStatus | None:
        """None when there is room."""
        if self._messages.open(channel.id) < capacity:
            return None
        overflow = channel.config.overflow or "block"
        if overflow == "block":
            return PublishStatus.FULL
        if overflow == "reject":
            return PublishStatus.REFUSED
        if overflow == "drop_old" and self._evict(channel, priority, now):
            return None
        return PublishStatus.DROPPED

    def _evict(self, channel: Channel, priority: int, now: Moment) -> bool:
        """Drop the least urgent message and of those the oldest, for one that is at least as urgent.

        What is in flight or delayed keeps its slot.
        """
        self.flush(now)
        victim = self._book.execute(
            "SELECT seq, key FROM nc_message WHERE channel = ? AND evictable = 1 AND priority >= ?"
            " AND CASE state WHEN 0 THEN NOT EXISTS (SELECT 1 FROM nc_entry WHERE nc_entry.seq = nc_message.seq AND NOT"
            " (state IN (1, 4) OR (state = 3 AND due <= ? AND ifnull(not_before, 0) <= ?)"
            " OR (state = 5 AND not_before <= ?)))"
            " WHEN 1 THEN stored_mono + delay <= ? AND ifnull(not_before, 0) <= ? ELSE 0 END"
            " ORDER BY priority DESC, seq LIMIT 1",
            (channel.id, priority, now.mono, now.wall, now.wall, now.mono, now.wall),
        ).fetchone()
        if victim is None:
            return False
        seq, key = victim
        for position in channel.positions:
            self._entries.drop(seq, position.id, key)
            self._messages.count_entries(position.id, -1)
        self._messages.delete(channel, seq)
        return True
