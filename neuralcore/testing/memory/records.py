"""What the store remembers of one message: the record itself, and its entry in each position that wants it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from neuralcore.messaging.transport import Envelope

if TYPE_CHECKING:
    from neuralcore.testing.memory.leases import Lease
    from neuralcore.testing.memory.position import Position

__all__ = ["Entry", "Moment", "Record", "State"]


class Moment(NamedTuple):
    """Both clocks, in nanoseconds. The store has none of its own: every call brings its moment."""

    mono: int
    wall: int


@dataclass(eq=False, slots=True)
class Record:
    """A stored message."""

    seq: int
    envelope: Envelope
    stored: Moment
    claims: int = 0
    """Positions that have not settled it."""
    waiting: bool = False
    """Nobody had subscribed when it was stored, and no group has come since."""

    @property
    def due(self) -> int:
        """Monotonic."""
        return self.stored.mono + self.envelope.delay_ns

    @property
    def size(self) -> int:
        return len(self.envelope.body)


class State(Enum):
    READY = auto()
    PARKED = auto()
    """Another message has its key."""
    DELAYED = auto()
    LEASED = auto()
    GONE = auto()


@dataclass(eq=False, slots=True)
class Entry:
    """A record in one position, until the position settles it."""

    record: Record
    position: Position
    rank: tuple[int, int]
    """Its priority, and its order among equals."""
    due: int
    """Monotonic."""
    not_before: int | None
    """Wall clock."""
    state: State = State.READY
    failed: int = 0
    """Attempts that are known to have failed, or were stored before a suspect's handler."""
    suspect: bool = False
    lease: Lease | None = None

    @property
    def key(self) -> str | None:
        return self.record.envelope.key

    def __lt__(self, other: Entry) -> bool:
        return self.rank < other.rank
