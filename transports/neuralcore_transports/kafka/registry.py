"""What is known of channels, and of the groups that have a position on them: the state that a log of changes makes.

The log is one topic of one partition, which every client reads from its beginning. Its order decides what the clients
cannot agree on otherwise: which group was a channel's first, and whether a channel was there before a pattern. Every
client comes to the same state, because a change means the same to everyone who has read what lies before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from neuralcore.messaging.names import is_pattern, matches

__all__ = [
    "FORMAT",
    "Attached",
    "Change",
    "Channel",
    "Forgotten",
    "Format",
    "Position",
    "Registry",
    "Removed",
    "Sought",
    "Starts",
    "Wanted",
    "read",
    "written",
]

FORMAT: Final = 1
"""Of the changes, of what commits say in their metadata, and of records: one that others cannot read is another."""

Starts = tuple[tuple[int, ...], ...]
"""Where a group starts in each partition of each band; partitions that came later start at their beginning."""


class Format(msgspec.Struct, frozen=True, tag="format"):
    """Of all that is here: the first one counts."""

    version: int


class Channel(msgspec.Struct, frozen=True, tag="channel", omit_defaults=True):
    """A channel is there, or has another configuration now."""

    channel: str
    partitions: int
    bands: tuple[int, ...] = ()
    age: float | None = None
    count: int | None = None
    bytes: int | None = None
    dedup_window: float | None = None
    implied: bool = False
    """Somebody needed it, or has counted its partitions, and says nothing else of it: one that is there already stays
    as it is, but for partitions that it has more.
    """

    def below(self, band: int) -> int | None:
        """All priorities of that band are more urgent; None: of the last one that cannot be said."""
        following = self.bands[band + 1 : band + 2]
        return following[0] if following else None

    @property
    def kept(self) -> bool:
        """Retention keeps some of what every group has settled."""
        return self.age is not None or self.count is not None or self.bytes is not None


class Removed(msgspec.Struct, frozen=True, tag="removed"):
    channel: str


class Attached(msgspec.Struct, frozen=True, tag="attached", omit_defaults=True):
    """A group has a position on a channel from here on, unless it has one already."""

    group: str
    channel: str
    ends: Starts
    """Where the channel ended then."""
    starts: Starts | None = None
    """None: at the beginning for the channel's first group, at ``ends`` for later ones."""


class Sought(msgspec.Struct, frozen=True, tag="sought"):
    """A group's position on a channel is another one now."""

    group: str
    channel: str
    starts: Starts


class Wanted(msgspec.Struct, frozen=True, tag="wanted"):
    """A group gets all channels that a pattern covers and that it has no position on, from their beginnings."""

    group: str
    pattern: str


class Forgotten(msgspec.Struct, frozen=True, tag="forgotten", omit_defaults=True):
    """A group, on one channel or altogether."""

    group: str
    channel: str | None = None


Change = Format | Channel | Removed | Attached | Sought | Wanted | Forgotten

_decoder = msgspec.json.Decoder(Change)


def written(change: Change) -> bytes:
    return msgspec.json.encode(change)


def read(data: bytes) -> Change:
    """Raises ValueError for what is none."""
    try:
        change: Change = _decoder.decode(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply to be one") from error
    return change


@dataclass(frozen=True, slots=True)
class Position:
    """Where a group is on a channel until it has committed something."""

    epoch: int
    """What was committed under another one is of another position."""
    starts: Starts | None
    """None: at the beginning."""

    def start(self, band: int, partition: int) -> int:
        if self.starts is None or band >= len(self.starts) or partition >= len(self.starts[band]):
            return 0
        return self.starts[band][partition]


class Registry:
    """Synchronous; changes come in the log's order."""

    def __init__(self) -> None:
        self.format: int | None = None
        self.channels: dict[str, Channel] = {}
        self._patterns: dict[str, _Patterns] = {}
        """By group."""
        self._created: dict[str, int] = {}
        self._positions: dict[str, dict[str, Position]] = {}
        """By channel, then group."""

    def apply(self, offset: int, change: Change) -> None:
        """``offset``: the change's in the log."""
        match change:
            case Format():
                if self.format is None:
                    self.format = change.version
            case Channel():
                self._put(offset, change)
            case Removed():
                self.channels.pop(change.channel, None)
                self._created.pop(change.channel, None)
                self._positions.pop(change.channel, None)
            case Attached():
                self._attach(offset, change)
            case Sought():
                if self.position(change.group, change.channel) is not None:
                    self._set(change.group, change.channel, Position(offset, change.starts))
            case Wanted():
                self._patterns.setdefault(change.group, _Patterns()).add(change.pattern, offset)
            case Forgotten():
                self._forget(offset, change)

    def _put(self, offset: int, change: Channel) -> None:
        known = self.channels.get(change.channel)
        if known is not None and change.implied:
            if change.partitions > known.partitions:
                self.channels[change.channel] = msgspec.structs.replace(known, partitions=change.partitions)
            return
        self._created.setdefault(change.channel, offset)
        self.channels[change.channel] = msgspec.structs.replace(change, implied=False)

    def _attach(self, offset: int, change: Attached) -> None:
        if change.channel not in self.channels or self.position(change.group, change.channel) is not None:
            return
        first = change.starts is None and not self.positions(change.channel)
        starts = None if first else change.ends if change.starts is None else change.starts
        self._set(change.group, change.channel, Position(offset, starts))

    def _set(self, group: str, channel: str, position: Position) -> None:
        self._positions.setdefault(channel, {})[group] = position

    def _forget(self, offset: int, change: Forgotten) -> None:
        if change.channel is None:
            self._patterns.pop(change.group, None)
            for positions in self._positions.values():
                positions.pop(change.group, None)
            return
        if change.group in self._patterns:
            self._patterns[change.group].remove(change.channel)
        self._positions.get(change.channel, {}).pop(change.group, None)
        if self.position(change.group, change.channel) is not None:  # a wider pattern covers it still
            self._set(change.group, change.channel, Position(offset, None))

    # Asking

    def position(self, group: str, channel: str) -> Position | None:
        """None: it has none there."""
        found = self._positions.get(channel, {}).get(group)
        created, patterns = self._created.get(channel), self._patterns.get(group)
        if found is None and created is not None and patterns is not None:  # each looked up once: threads ask, too
            since = patterns.since(channel)
            return None if since is None else Position(max(since, created), None)
        return found

    def created(self, channel: str) -> int | None:
        """Another one when it was removed and made again; None when it is not there."""
        return self._created.get(channel)

    def positions(self, channel: str) -> dict[str, Position]:
        """Of all groups that have one there."""
        groups = {**self._positions.get(channel, {}), **self._patterns}
        found = ((group, self.position(group, channel)) for group in groups)
        return {group: position for group, position in found if position is not None}

    def wants(self, group: str, pattern: str) -> bool:
        """It has subscribed to this pattern."""
        return group in self._patterns and pattern in self._patterns[group]

    def covered(self, pattern: str) -> list[Channel]:
        if not is_pattern(pattern):
            return [self.channels[pattern]] if pattern in self.channels else []
        return [channel for name, channel in self.channels.items() if matches(pattern, name)]


class _Patterns:
    """Most are plain names, and there may be thousands of them."""

    __slots__ = ("_names", "_wild")

    def __init__(self) -> None:
        self._names: dict[str, int] = {}
        """With the offsets of the changes that brought them."""
        self._wild: dict[str, int] = {}
        """Replaced, never changed: other threads look into it."""

    def __contains__(self, pattern: str) -> bool:
        return pattern in self._names or pattern in self._wild

    def add(self, pattern: str, offset: int) -> None:
        if is_pattern(pattern):
            self._wild = {pattern: offset, **self._wild}
        else:
            self._names.setdefault(pattern, offset)

    def remove(self, pattern: str) -> None:
        self._names.pop(pattern, None)
        self._wild = {known: offset for known, offset in self._wild.items() if known != pattern}

    def since(self, channel: str) -> int | None:
        """When the first of those that cover it came; None when none does."""
        found = [offset for pattern, offset in self._wild.items() if matches(pattern, channel)]
        if channel in self._names:
            found.append(self._names[channel])
        return min(found, default=None)
