"""Who subscribes to what: groups, their patterns, and the positions that these make on channels."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.names import matches
from neuralcore.messaging.transport import Cursor, Interest
from neuralcore_transports.sqlite.store.entries import Entries
from neuralcore_transports.sqlite.store.messages import BESIDE, Messages
from neuralcore_transports.sqlite.store.moment import Moment
from neuralcore_transports.sqlite.store.registry import (
    Channel,
    Position,
    Subscriber,
    default_start,
    encode_config,
)
from neuralcore_transports.sqlite.store.seen import Seen
from neuralcore_transports.sqlite.store.transaction import Book

__all__ = ["Subscribers", "place_after", "resolve"]

_MARK = "@"
"""Begins a cursor that is a place in the order; unlike an id it outlives its message."""


class Subscribers:
    """Groups and their positions last until they are removed; broadcasts end with their reader."""

    def __init__(self, book: Book, messages: Messages, entries: Entries, seen: Seen) -> None:
        self._book = book
        self._seen = seen
        self._messages = messages
        self._entries = entries

    # Channels

    def create(self, config: ChannelConfig, now: Moment) -> Channel:
        """A new channel, from its beginning for everyone whose patterns cover it."""
        registry = self._book.registry
        self._book.execute("INSERT INTO nc_channel (name, config) VALUES (?, ?)", (config.name, encode_config(config)))
        registry.changed()
        channel = registry.channels[config.name]
        for subscriber in [
            subscriber
            for subscriber in registry.subscribers.values()
            if not subscriber.ended and subscriber.wants(config.name)
        ]:
            self._place(subscriber, channel, 0)
        registry.changed()
        return registry.channels[config.name]

    def configure(self, config: ChannelConfig, now: Moment) -> None:
        registry = self._book.registry
        channel = registry.channels[config.name]
        retained = channel.config.retention is not None
        self._book.execute("UPDATE nc_channel SET config = ? WHERE id = ?", (encode_config(config), channel.id))
        registry.changed()
        channel = registry.channels[config.name]
        if channel.config.retention is not None and not retained:
            self._messages.retain_waiting(channel)
        self._messages.trim(channel, now, BESIDE)

    # Subscribing

    def update(
        self, group: str | None, owner: int, interests: Sequence[Interest], known: dict[int, int], now: Moment
    ) -> dict[int, int]:
        """The subscriber of each interest: one for all of a group's, or a broadcast's own, ``known`` from before.

        Raises ValueError for a start that cannot be found.
        """
        registry = self._book.registry
        subscribers = {interest.id: self._subscriber(group, owner, known.get(interest.id)) for interest in interests}
        for interest in interests:
            subscriber = registry.subscribers[subscribers[interest.id]]
            if interest.pattern not in subscriber.patterns:
                self._subscribe(subscriber, interest, now)
        return subscribers

    def _subscriber(self, group: str | None, owner: int, known: int | None) -> int:
        registry = self._book.registry
        subscriber = registry.subscribers.get(known or 0) if group is None else registry.group(group)
        if subscriber is not None:
            return subscriber.id
        made = self._book.execute(
            "INSERT INTO nc_subscriber (name, owner) VALUES (?, ?)", (group, owner if group is None else None)
        ).lastrowid
        assert made is not None
        registry.changed()
        return made

    def _subscribe(self, subscriber: Subscriber, interest: Interest, now: Moment) -> None:
        registry = self._book.registry
        covered = list(registry.covered(interest.pattern))
        starts = [
            (channel.id, self._start(subscriber, channel, interest, covered))
            for channel in covered
            if channel.id not in subscriber.positions
        ]
        self._book.execute("INSERT INTO nc_pattern VALUES (?, ?)", (subscriber.id, interest.pattern))
        registry.changed()
        for channel_id, start in starts:
            self._attach(subscriber.id, channel_id, start, now)

    def _start(self, subscriber: Subscriber, channel: Channel, interest: Interest, covered: Sequence[Channel]) -> int:
        start = default_start(subscriber, channel) if interest.start is None else interest.start
        return resolve(self._book, self._seen, start, covered)

    def _attach(self, subscriber: int, channel_id: int, start: int, now: Moment) -> None:
        registry = self._book.registry
        channel = registry.channel(channel_id)
        assert channel is not None
        had_group = channel.has_group
        id = self._place(registry.subscribers[subscriber], channel, start)
        registry.changed()
        position = registry.positions[id]
        self._begin(position, now)
        if position.channel.has_group and not had_group:
            self._messages.end_waiting(position.channel)
            self._messages.collect(position.channel, 0, start, now, grouped=True)

    def _place(self, subscriber: Subscriber, channel: Channel, start: int) -> int:
        made = self._book.execute(
            "INSERT INTO nc_position (subscriber, channel, start) VALUES (?, ?, ?)", (subscriber.id, channel.id, start)
        ).lastrowid
        assert made is not None
        return made

    def _begin(self, position: Position, now: Moment) -> None:
        """It wants everything from its start on."""
        channel = position.channel
        self._messages.claim(channel, position.start)
        self._entries.place(channel, position.start, now, [position])
        (count,) = self._book.execute(
            "SELECT count(*) FROM nc_message WHERE channel = ? AND seq >= ?", (channel.id, position.start)
        ).fetchone()
        self._book.execute("UPDATE nc_position SET entries = ? WHERE id = ?", (count, position.id))

    # Ending

    def end(self, subscriber_id: int, now: Moment) -> None:
        """A broadcast gets nothing more; what it has in flight may still be settled."""
        registry = self._book.registry
        subscriber = registry.subscribers.get(subscriber_id)
        if subscriber is None:
            return
        self._book.execute("UPDATE nc_subscriber SET ended = 1 WHERE id = ?", (subscriber_id,))
        self._book.execute("UPDATE nc_position SET ended = 1 WHERE subscriber = ?", (subscriber_id,))
        positions = list(subscriber.positions.values())
        registry.changed()
        for position in positions:
            self._entries.clear(position, in_flight=False)
            left = len(self._entries.in_flight(position))
            self._book.execute("UPDATE nc_position SET entries = ? WHERE id = ?", (left, position.id))
            self._left(position, now)
        self.bury(subscriber_id)

    def _left(self, position: Position, now: Moment) -> None:
        """A position that is gone wanted everything from its start on."""
        channel = self._book.registry.channel(position.channel.id)
        if channel is not None:
            grouped = position.subscriber.name is not None
            self._messages.collect(channel, position.start, self._book.number(), now, grouped=grouped)

    def bury(self, subscriber_id: int) -> None:
        """Forget an ended broadcast once it has nothing left in flight."""
        registry = self._book.registry
        subscriber = registry.subscribers.get(subscriber_id)
        if subscriber is None or not subscriber.ended:
            return
        left = [
            position
            for position in subscriber.positions.values()
            if not self._book.execute(
                "SELECT 1 FROM nc_entry INDEXED BY nc_entry_leased WHERE state = 2 AND position = ? LIMIT 1",
                (position.id,),
            ).fetchone()
        ]
        for position in left:
            self._remove_position(position)
        if len(left) == len(subscriber.positions):
            self._remove_subscriber(subscriber)
        if left or not subscriber.positions:
            registry.changed()

    def end_owner(self, owner: int, now: Moment) -> None:
        """All broadcasts of one."""
        subscribers = self._book.registry.subscribers.values()
        for id, ended in [(subscriber.id, subscriber.ended) for subscriber in subscribers if subscriber.owner == owner]:
            if ended:
                self.bury(id)  # its last delivery went with its channel
            else:
                self.end(id, now)

    def settled_by(self, channel_id: int, seqs: Sequence[int], now: Moment) -> None:
        channel = self._book.registry.channel(channel_id)
        if channel is not None and seqs:
            self._messages.unclaim(channel, seqs, now)

    def _remove_position(self, position: Position) -> None:
        self._book.execute("DELETE FROM nc_held WHERE position = ?", (position.id,))
        self._book.execute("DELETE FROM nc_cursor WHERE position = ?", (position.id,))
        self._book.execute("DELETE FROM nc_position WHERE id = ?", (position.id,))

    def _remove_subscriber(self, subscriber: Subscriber) -> None:
        self._book.execute("DELETE FROM nc_pattern WHERE subscriber = ?", (subscriber.id,))
        self._book.execute("DELETE FROM nc_subscriber WHERE id = ?", (subscriber.id,))

    # Removing

    def remove_channel(self, name: str, now: Moment) -> None:
        """With everything in it."""
        registry = self._book.registry
        channel = registry.channels.get(name)
        if channel is None:
            return
        for position in [p for p in registry.positions.values() if p.channel is channel]:
            self._forget(position)
        for table in ("nc_message", "nc_seen"):
            self._book.execute(f"DELETE FROM {table} WHERE channel = ?", (channel.id,))
        self._book.execute("DELETE FROM nc_channel WHERE id = ?", (channel.id,))
        registry.changed()

    def remove_group(self, name: str, channel: str | None, now: Moment) -> None:
        registry = self._book.registry
        subscriber = registry.group(name)
        if subscriber is None:
            return
        gone = [p for p in subscriber.positions.values() if channel is None or p.channel.name == channel]
        where = "" if channel is None else " AND pattern = ?"
        self._book.execute(
            f"DELETE FROM nc_pattern WHERE subscriber = ?{where}",
            (subscriber.id, *(() if channel is None else (channel,))),
        )
        for position in gone:
            self._forget(position)
        if channel is None:
            self._remove_subscriber(subscriber)
        registry.changed()
        for position in gone:
            self._left(position, now)

    def _forget(self, position: Position) -> None:
        self._entries.lose(self._entries.in_flight(position))
        self._entries.clear(position, in_flight=True)
        self._remove_position(position)

    # Seeking

    def seek(self, subscriber: Subscriber | None, pattern: str, cursor: Cursor, now: Moment) -> None:
        """Every message from there on again, as if new; those in flight are lost to their owners."""
        registry = self._book.registry
        everywhere = () if subscriber is None else subscriber.positions.values()
        positions = [position for position in everywhere if matches(pattern, position.channel.name)]
        start = resolve(self._book, self._seen, cursor, [position.channel for position in positions])
        for position in positions:
            self._entries.lose(self._entries.in_flight(position))
            self._entries.clear(position, in_flight=True)
            self._book.execute("DELETE FROM nc_cursor WHERE position = ?", (position.id,))
            self._book.execute("UPDATE nc_position SET start = ? WHERE id = ?", (start, position.id))
        registry.changed()
        for before in positions:
            position = registry.positions[before.id]
            self._begin(position, now)
            grouped = position.subscriber.name is not None
            self._messages.collect(position.channel, before.start, start, now, grouped=grouped)


def place_after(seq: int) -> str:
    """The cursor for what follows."""
    return f"{_MARK}{seq + 1}"


def resolve(book: Book, seen: Seen, cursor: Cursor, channels: Sequence[Channel]) -> int:
    """The number at which a cursor begins; ids are looked up in these channels.

    Raises ValueError for an id that is not kept and for a time without a zone.
    """
    if isinstance(cursor, datetime):
        if cursor.tzinfo is None:
            raise ValueError(f"a cursor's time needs a zone, as in datetime.now(timezone.utc); got {cursor!r}")
        return _at(book, round(cursor.timestamp() * 1e9), channels)
    if cursor == "beginning":
        return 0
    if cursor == "new":
        return book.number()
    found = seen.find(cursor, channels)
    if found is not None:
        return found
    if cursor.startswith(_MARK) and cursor[1:].isdecimal():
        return min(int(cursor[1:]), book.number())
    raise ValueError(f"no message {cursor!r} is kept; start at 'beginning', 'new', or at a time")


def _at(book: Book, wall: int, channels: Sequence[Channel]) -> int:
    """The first message of that time or later; what comes after it may be older, if the clock was set back."""
    found = [
        book.execute("SELECT min(seq) FROM nc_message WHERE channel = ? AND wall >= ?", (channel.id, wall)).fetchone()[
            0
        ]
        for channel in channels
    ]
    return min((seq for seq in found if seq is not None), default=None) or book.number()
