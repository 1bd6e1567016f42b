"""Both clocks at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Limits", "Moment"]


class Moment(NamedTuple):
    """Nanoseconds. The store has no clock of its own: every call brings its moment."""

    mono: int
    """The store's own time, which never jumps; see ``clock.py``."""
    wall: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Times in nanoseconds."""

    lease: int = 10_000_000_000
    """How long a process that stopped beating keeps what it has fetched."""
    max_hold: int = 3_600_000_000_000
    """How long a handler may keep one message at most."""
    dedup_window: int = 300_000_000_000
    """For channels that do not say otherwise."""
    session_ttl: int = 60_000_000_000
    """How long the inboxes and broadcasts of a process outlive it when it fell silent."""
    inbox_capacity: int = 10_000
