"""What the store knows of channels, subscribers, patterns and positions, in memory for as long as nobody changes it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from neuralcore.messaging.channel import ChannelConfig, RateLimit, Retention
from neuralcore.messaging.names import matches
from neuralcore.messaging.transport import Cursor

__all__ = ["Channel", "Position", "Registry", "Subscriber", "decode_config", "default_start", "encode_config"]


@dataclass(eq=False, slots=True)
class Channel:
    id: int
    name: str
    config: ChannelConfig
    positions: list[Position] = field(default_factory=list)
    """Those that get what is published from now on."""

    @property
    def has_group(self) -> bool:
        return any(position.subscriber.name is not None for position in self.positions)


@dataclass(eq=False, slots=True)
class Subscriber:
    """A group, or without a name one broadcast of its owner."""

    id: int
    name: str | None
    owner: int | None
    ended: bool
    """It gets nothing new; what is in flight may still be settled."""
    patterns: set[str] = field(default_factory=set)
    positions: dict[int, Position] = field(default_factory=dict)
    """By channel."""

    def wants(self, channel: str) -> bool:
        return any(matches(pattern, channel) for pattern in self.patterns)


@dataclass(eq=False, slots=True)
class Position:
    id: int
    subscriber: Subscriber
    channel: Channel
    start: int
    """It wants the messages from this number on."""


class Registry:
    """Read inside transactions; whoever writes to these tables calls ``changed``."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._version = -1
        self._changed = False
        self.loads = 0
        """How often it was read. An undone transaction's version is the next one's too; this is not."""
        self.channels: dict[str, Channel] = {}
        self.subscribers: dict[int, Subscriber] = {}
        self.positions: dict[int, Position] = {}
        self._by_id: dict[int, Channel] = {}
        self._groups: dict[str, Subscriber] = {}

    def refresh(self, version: int) -> None:
        if version != self._version:
            self._load()
            self._version = version

    def forget_changes(self) -> None:
        """The transaction that made them did not happen, or was ended already."""
        if self._changed:
            self._version = -1
            self._changed = False

    def keep_changes(self) -> None:
        """The transaction that made them was committed."""
        self._changed = False

    def changed(self) -> None:
        """Bring it up to date after a change in this transaction, and have everybody else do so."""
        (version,) = self._connection.execute(
            "UPDATE nc_store SET registry = registry + 1 RETURNING registry"
        ).fetchone()
        self._changed = True
        self._load()
        self._version = version

    def channel(self, id: int) -> Channel | None:
        return self._by_id.get(id)

    def group(self, name: str) -> Subscriber | None:
        return self._groups.get(name)

    def covered(self, pattern: str) -> Iterator[Channel]:
        exact = self.channels.get(pattern)
        if exact is not None:
            return iter((exact,))
        return (channel for name, channel in self.channels.items() if matches(pattern, name))

    def _load(self) -> None:
        self.loads += 1
        try:
            self._read()
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            raise sqlite3.DatabaseError(
                f"malformed: the registry of channels and groups cannot be read: {error}"
            ) from error

    def _read(self) -> None:
        execute = self._connection.execute
        by_id = {
            id: Channel(id, name, _config(name, config))
            for id, name, config in execute("SELECT id, name, config FROM nc_channel ORDER BY id")
        }
        subscribers = {
            id: Subscriber(id, name, owner, bool(ended))
            for id, name, owner, ended in execute("SELECT id, name, owner, ended FROM nc_subscriber ORDER BY id")
        }
        for id, pattern in execute("SELECT subscriber, pattern FROM nc_pattern"):
            if id in subscribers:
                subscribers[id].patterns.add(pattern)
        positions: dict[int, Position] = {}
        for id, subscriber_id, channel_id, start in execute(
            "SELECT id, subscriber, channel, start FROM nc_position ORDER BY id"
        ):
            subscriber, channel = subscribers.get(subscriber_id), by_id.get(channel_id)
            if subscriber is not None and channel is not None:
                positions[id] = subscriber.positions[channel_id] = Position(id, subscriber, channel, start)
                if not subscriber.ended:
                    channel.positions.append(positions[id])
        self._by_id, self.subscribers, self.positions = by_id, subscribers, positions
        self.channels = {channel.name: channel for channel in by_id.values()}
        self._groups = {
            subscriber.name: subscriber for subscriber in subscribers.values() if subscriber.name is not None
        }


def encode_config(config: ChannelConfig) -> str:
    return msgspec.json.encode(config).decode()


def decode_config(text: str) -> ChannelConfig:
    """Not by msgspec's own way into dataclasses, which on Python 3.10 stumbles over KW_ONLY."""
    fields = msgspec.json.decode(text, type=dict[str, Any])
    rate, retention = fields.pop("rate_limit", None), fields.pop("retention", None)
    return ChannelConfig(
        **fields,
        rate_limit=None if rate is None else RateLimit(**rate),
        retention=None if retention is None else Retention(**retention),
    )


def _config(name: str, text: str) -> ChannelConfig:
    try:
        return decode_config(text)
    except ValueError as error:  # msgspec's are ones too
        raise sqlite3.DatabaseError(f"malformed: the configuration of channel {name} cannot be read") from error


def default_start(subscriber: Subscriber, channel: Channel) -> Cursor:
    """A channel's first group starts at the beginning, later ones and broadcasts at new."""
    return "new" if subscriber.name is None or channel.has_group else "beginning"
