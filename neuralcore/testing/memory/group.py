"""A group: its patterns, its positions, its members; a broadcast is a group of one without a name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuralcore.messaging.names import matches
from neuralcore.testing.memory.records import Moment

if TYPE_CHECKING:
    from neuralcore.testing.memory.position import Position
    from neuralcore.testing.memory.reader import Reader

__all__ = ["GroupState"]


class GroupState:
    def __init__(self, name: str | None) -> None:
        self.name = name
        self.patterns: dict[str, None] = {}
        """A set that keeps its order, so that a seeded run repeats."""
        self.positions: dict[str, Position] = {}
        """By channel."""
        self.readers: dict[Reader, None] = {}
        self.active: dict[Position, None] = {}
        """Positions that may have something ready; ordered, so that a run repeats."""
        self.ended = False

    def wants(self, channel: str) -> bool:
        return any(matches(pattern, channel) for pattern in self.patterns)

    def ready(self, position: Position) -> None:
        self.active[position] = None
        for reader in self.readers:
            reader.wake()

    def remove(self, channel: str) -> Position | None:
        position = self.positions.pop(channel, None)
        if position is not None:
            self.active.pop(position, None)
            position.channel.detach(position)
        return position

    def end(self, now: Moment) -> None:
        """Nothing more for it; what is in flight may still be settled."""
        self.ended = True
        for channel in list(self.positions):
            position = self.remove(channel)
            if position is not None:
                position.drop_waiting(now)
                if position.leased:
                    position.channel.leaving[position] = None
