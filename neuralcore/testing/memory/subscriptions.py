"""Who subscribes to what: groups, their patterns, and the positions that these make on channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from neuralcore.messaging.names import matches
from neuralcore.messaging.transport import Cursor, Interest
from neuralcore.testing.memory.channel import Channel
from neuralcore.testing.memory.cursors import resolve
from neuralcore.testing.memory.delays import Delays
from neuralcore.testing.memory.group import GroupState
from neuralcore.testing.memory.leases import Owner
from neuralcore.testing.memory.position import Position
from neuralcore.testing.memory.reader import Reader
from neuralcore.testing.memory.records import Entry, Moment, Record, State

__all__ = ["Subscriptions"]


_Starts = dict[tuple[GroupState, Channel], Callable[[Record], bool]]


class Subscriptions:
    """Named groups and their positions last until they are removed; broadcasts end with their reader."""

    def __init__(self, channels: dict[str, Channel], delays: Delays, next_seq: Callable[[], int]) -> None:
        self._channels = channels
        self._delays = delays
        self._next_seq = next_seq
        self._groups: dict[str, GroupState] = {}
        self._broadcasts: dict[GroupState, None] = {}
        self._readers: dict[Reader, None] = {}

    # Readers

    def open(self, reader: Reader) -> Reader:
        self._readers[reader] = None
        return reader

    def is_open(self, reader: Reader) -> bool:
        return reader in self._readers

    def update(self, reader: Reader, interests: Sequence[Interest], now: Moment) -> None:
        """Raises ValueError for a start that cannot be found; nothing is changed then."""
        wanted = {interest.id: interest for interest in interests}
        groups = self._groups_of(reader, wanted)
        starts = self._starts(interests, groups)
        self._readers[reader] = None
        for group in groups.values():
            self._keep(group)
        for interest in interests:
            groups[interest.id].patterns[interest.pattern] = None
        for (group, channel), start in starts.items():
            channel.attach(self._position(group, channel), start, now)
        left = [group for group in reader.groups.values() if group not in groups.values()]
        reader.set(wanted, groups)
        for group in left:
            self._end_broadcast(group, now)

    def _groups_of(self, reader: Reader, ids: Iterable[int]) -> dict[int, GroupState]:
        if reader.group is None:
            return {id: reader.groups.get(id) or GroupState(None) for id in ids}
        return dict.fromkeys(ids, self._groups.get(reader.group) or GroupState(reader.group))

    def _keep(self, group: GroupState) -> None:
        if group.name is None:
            self._broadcasts[group] = None
        else:
            self._groups[group.name] = group

    def close(self, reader: Reader, now: Moment) -> None:
        if self.is_open(reader):
            self.update(reader, (), now)
            del self._readers[reader]

    def close_all(self, owner: Owner, now: Moment) -> None:
        for reader in [reader for reader in self._readers if reader.owner is owner]:
            self.close(reader, now)

    def _end_broadcast(self, group: GroupState, now: Moment) -> None:
        if group in self._broadcasts:
            del self._broadcasts[group]
            group.end(now)

    # Positions

    def _starts(self, interests: Sequence[Interest], groups: dict[int, GroupState]) -> _Starts:
        """Which records each new position wants."""
        starts: _Starts = {}
        for interest in interests:
            group = groups[interest.id]
            if interest.pattern in group.patterns:
                continue
            covered = [c for c in self._channels.values() if matches(interest.pattern, c.name)]
            for channel in covered:
                if channel.name not in group.positions and (group, channel) not in starts:
                    starts[group, channel] = resolve(self._start(group, channel, interest), covered)
        return starts

    def _start(self, group: GroupState, channel: Channel, interest: Interest) -> Cursor:
        if interest.start is not None:
            return interest.start
        return "new" if group.name is None or channel.has_group else "beginning"

    def _position(self, group: GroupState, channel: Channel) -> Position:
        position = Position(channel, group, self._delays, self._next_seq)
        group.positions[channel.name] = position
        return position

    def pick_up(self, channel: Channel, now: Moment) -> None:
        """A new channel, from its beginning, for everyone whose patterns cover it."""
        for group in (*self._groups.values(), *self._broadcasts):
            if group.wants(channel.name):
                channel.attach(self._position(group, channel), lambda record: True, now)

    def seek(self, reader: Reader, id: int, cursor: Cursor, now: Moment) -> list[Entry]:
        """The entries that were in flight until now."""
        interest, group = reader.interests[id], reader.groups[id]
        positions = [p for name, p in group.positions.items() if matches(interest.pattern, name)]
        wanted = resolve(cursor, [position.channel for position in positions])
        return [entry for p in positions for entry in p.reset(p.channel.read(wanted), now)]

    # Removal; each answers the entries that were in flight until now

    def forget_channel(self, name: str, now: Moment) -> list[Entry]:
        channel = self._channels.get(name)
        if channel is None:
            return []
        return [entry for p in channel.holders for entry in self._forget(p, now)]

    def forget_group(self, name: str, channel: str | None, now: Moment) -> list[Entry]:
        group = self._groups.get(name)
        if group is None:
            return []
        if channel is None:
            group.patterns.clear()
            found = list(group.positions.values())
        else:
            group.patterns.pop(channel, None)
            found = [group.positions[channel]] if channel in group.positions else []
        if channel is None and not group.readers:
            del self._groups[name]
        return [entry for position in found for entry in self._forget(position, now)]

    def _forget(self, position: Position, now: Moment) -> list[Entry]:
        """First its messages, so that those which nobody else wants go with it."""
        in_flight = [entry for entry in position.entries.values() if entry.state is State.LEASED]
        for seq in list(position.entries):
            position.drop(seq, now)
        position.group.remove(position.channel.name)
        return in_flight
