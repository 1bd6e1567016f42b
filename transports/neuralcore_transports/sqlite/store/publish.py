"""Storing what is published: known or new, room or none, and an entry for everyone who wants it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.errors import InvalidChannelName
from neuralcore.messaging.names import INBOX_PREFIX, validate_channel
from neuralcore.messaging.transport import Envelope, PublishStatus
from neuralcore_transports.sqlite.store import bulk
from neuralcore_transports.sqlite.store.entries import Entries
from neuralcore_transports.sqlite.store.fresh import Fresh
from neuralcore_transports.sqlite.store.inboxes import Inboxes
from neuralcore_transports.sqlite.store.messages import BESIDE, PRIORITIES, Messages
from neuralcore_transports.sqlite.store.moment import Moment
from neuralcore_transports.sqlite.store.registry import Channel
from neuralcore_transports.sqlite.store.rows import INSERT, attribute, row_of
from neuralcore_transports.sqlite.store.schema import MessageState
from neuralcore_transports.sqlite.store.seen import Coming, Seen, key_of
from neuralcore_transports.sqlite.store.subscribers import Subscribers
from neuralcore_transports.sqlite.store.transaction import Book

__all__ = ["Publisher"]

# sqlite3 takes its time over what is no int itself.
_OPEN, _WAITING, _PLACED = int(MessageState.OPEN), int(MessageState.WAITING), int(MessageState.PLACED)
_LEAST_URGENT_FIRST: Final = f"{PRIORITIES} SELECT priority FROM p WHERE priority >= ? ORDER BY priority DESC"


class Publisher:
    """Of one transaction at a time."""

    def __init__(
        self,
        book: Book,
        messages: Messages,
        entries: Entries,
        subscribers: Subscribers,
        seen: Seen,
        inboxes: Inboxes,
        fresh: Fresh,
    ) -> None:
        self._book = book
        self._messages = messages
        self._entries = entries
        self._subscribers = subscribers
        self._seen = seen
        self._inboxes = inboxes
        self._fresh = fresh
        self._coming: list[Coming] = []
        self._keys: set[tuple[int, str]] = set()
        """Theirs."""
        self._statuses: list[PublishStatus] = []
        self._reasons: dict[int, str] = {}

    def publish(self, envelopes: Sequence[Envelope], now: Moment) -> tuple[list[PublishStatus], dict[int, str]]:
        """Also the reasons of refusals, by index."""
        self._statuses, self._reasons = [PublishStatus.STORED] * len(envelopes), {}
        for index, envelope in enumerate(envelopes):
            otherwise = self._let_in(index, envelope, now)
            if otherwise is not None:
                self._statuses[index] = otherwise
        self._flush(now)
        return self._statuses, self._reasons

    def _let_in(self, index: int, envelope: Envelope, now: Moment) -> PublishStatus | None:
        """None: it is stored with the next flush, unless that finds it known."""
        name = envelope.channel
        if name.startswith(INBOX_PREFIX):
            return self._inboxes.put(envelope)
        channel = self._book.registry.channels.get(name)
        if channel is None:
            try:
                validate_channel(name, internal=True)
            except InvalidChannelName as error:
                self._reasons[index] = str(error)
                return PublishStatus.REFUSED
            self._flush(now)
            channel = self._subscribers.create(ChannelConfig(name), now)
        key = key_of(envelope)
        if channel.config.capacity is not None:
            refusal = self._find_room(envelope, key, channel, channel.config.capacity, now)
            if refusal is not None:
                return refusal
        known_by = channel.id, key
        if known_by in self._keys:
            self._flush(now)
        self._keys.add(known_by)
        self._coming.append(Coming(index, envelope, channel, self._book.number(), key))
        return None

    def _flush(self, now: Moment) -> None:
        """Write what was published since."""
        if not self._coming:
            return
        known = self._seen.see(self._coming, now)
        waits = {channel: _waits(channel) for channel in {each.channel for each in self._coming}}
        rows: list[tuple[Any, ...]] = []
        sizes: dict[Channel, list[int]] = {channel: [] for channel in waits}
        placed: dict[Channel, int] = {}
        for index, envelope, channel, seq, _ in self._coming:
            if known and seq in known:
                self._statuses[index] = PublishStatus.DUPLICATE
                continue
            state = _OPEN
            if waits[channel]:
                state = _WAITING
            elif envelope.delay_ns or envelope.not_before_ns is not None:
                state = _PLACED
                placed.setdefault(channel, seq)
            else:
                self._fresh.add(channel, seq, envelope)
            sizes[channel].append(len(envelope.body))
            rows.append(row_of(envelope, seq, channel.id, now, state))
        bulk.insert(self._book.execute, INSERT, rows)
        for channel, first in placed.items():
            self._entries.place(channel, first, now, channel.positions)
        for channel, each in sizes.items():
            self._count(channel, each, waits=waits[channel])
        self.forget()

    def _count(self, channel: Channel, sizes: Sequence[int], *, waits: bool) -> None:
        waiting = len(sizes) * waits
        size = sum(sizes) * waits
        self._messages.count(channel.id, opened=len(sizes), waiting=waiting, kept=waiting, size=size)
        for position in channel.positions:
            self._messages.count_entries(position.id, len(sizes))

    def forget(self) -> None:
        """The transaction was undone."""
        self._coming.clear()
        self._keys.clear()

    # Room or none

    def _find_room(
        self, envelope: Envelope, key: str, channel: Channel, capacity: int, now: Moment
    ) -> PublishStatus | None:
        """None when there is some."""
        if self._messages.open(channel.id) + len(self._coming) < capacity:
            return None
        self._flush(now)
        if self._messages.open(channel.id) < capacity:
            return None
        if self._seen.knows(key, channel, now):
            return PublishStatus.DUPLICATE
        return self._make_room(channel, capacity, envelope.priority, now)

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
        self._flush(now)
        return self._messages.trim(channel, now, BESIDE) > 0 and self._messages.open(channel.id) < capacity

    def _evict(self, channel: Channel, priority: int, now: Moment) -> bool:
        """Drop the least urgent message and of those the oldest, for one that is at least as urgent.

        What is in flight or delayed keeps its slot.
        """
        self._flush(now)
        for (rank,) in self._book.execute(_LEAST_URGENT_FIRST, (channel.id, channel.id, priority)).fetchall():
            victim = self._book.execute(
                "SELECT seq FROM nc_message m WHERE channel = :channel AND priority = :priority AND state != 2"
                " AND NOT EXISTS (SELECT 1 FROM nc_entry e WHERE e.seq = m.seq AND NOT (e.state IN (1, 4)"
                " OR (e.state = 3 AND e.due <= :mono AND ifnull(e.not_before, 0) <= :wall)"
                " OR (e.state = 5 AND e.not_before <= :wall)))"
                " AND (EXISTS (SELECT 1 FROM nc_entry e WHERE e.seq = m.seq)"
                f" OR (mono + ifnull({attribute('delay', 'm.')}, 0) <= :mono"
                f" AND ifnull({attribute('not_before', 'm.')}, 0) <= :wall)) ORDER BY seq LIMIT 1",
                {"channel": channel.id, "priority": rank, "mono": now.mono, "wall": now.wall},
            ).fetchone()
            if victim is not None:
                self._entries.withdraw(channel, victim[0], rank)
                self._messages.delete(channel, victim[0])
                return True
        return False


def _waits(channel: Channel) -> bool:
    """For a first group, while retention may take what comes."""
    return not channel.positions and channel.config.retention is not None
