"""The terms of a subscription: where its intake listens and how that settles; members of one group agree on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Literal, get_args

from neuralcore._core import Message
from neuralcore.messaging.channel import Overflow
from neuralcore.messaging.checks import MAX_COUNT, check_choice, check_count, check_dead_letter, check_text, check_type
from neuralcore.messaging.context import BusContext
from neuralcore.messaging.errors import BadHandler
from neuralcore.messaging.names import validate_pattern
from neuralcore.messaging.retry import RetryPolicy
from neuralcore.messaging.transport import Cursor

__all__ = ["Terms"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Where an intake listens and how it settles: the part of a subscription that all members share."""

    pattern: str
    group: str | None
    broadcast: bool
    capacity: int | None
    """None: what the channel says, else the bus."""
    overflow: Overflow | None
    retry: RetryPolicy
    filter: Callable[[Message], bool] | None
    hold_keys: bool
    start: Cursor | None
    dead_letter: str | Literal[False] | None
    """A channel, None for the default one, False for none."""
    expired: Literal["count", "dead_letter"]

    def __post_init__(self) -> None:
        validate_pattern(self.pattern)
        if self.group is not None:
            check_text("group", self.group)
        check_type("broadcast", self.broadcast, bool)
        if self.capacity is not None:
            check_count("capacity", self.capacity, most=MAX_COUNT)
        if self.overflow is not None:
            check_choice("overflow", self.overflow, get_args(Overflow))
        check_type("retry", self.retry, RetryPolicy)
        check_type("hold_keys", self.hold_keys, bool)
        check_type("start", self.start, str, datetime, type(None))
        check_dead_letter("dead_letter", self.dead_letter, self.pattern)
        check_choice("expired", self.expired, ("count", "dead_letter"))
        if self.group is not None and self.broadcast:
            raise ValueError(
                "group= and broadcast=True exclude each other: a group shares messages, a broadcast does not"
            )

    def bounds(self, context: BusContext) -> tuple[int, Overflow]:
        """The capacity and the overflow policy of the mailbox, as its channel is configured now."""
        channel = context.configs.get(self.pattern)
        capacity, overflow = (channel.capacity, channel.overflow) if channel else (None, None)
        return self.capacity or capacity or context.capacity, self.overflow or overflow or context.overflow

    def differences(self, other: Terms, context: BusContext) -> list[str]:
        """The names of what the two do not agree on, once defaults are filled in."""
        mine, theirs = self._effective(context), other._effective(context)
        return [f.name for f in fields(self) if getattr(mine, f.name) != getattr(theirs, f.name)]

    @property
    def shared(self) -> tuple[str, str] | None:
        """Group and pattern, whose members share one intake and agree on all terms. None for a broadcast."""
        return None if self.group is None else (self.group, self.pattern)

    def agree(self, other: Terms, context: BusContext) -> None:
        """Raises BadHandler when two members of one group on one pattern do not agree."""
        differences = self.differences(other, context)
        if differences:
            raise BadHandler(
                f"members of group {self.group!r} on {self.pattern!r} must agree, but the new one differs in "
                f"{', '.join(differences)}"
            )

    def _effective(self, context: BusContext) -> Terms:
        capacity, overflow = self.bounds(context)
        return replace(self, capacity=capacity, overflow=overflow)
