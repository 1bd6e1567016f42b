"""An intake: the mailbox of one group (or of one broadcast) on one pattern, and what its members agree on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from neuralcore._core import Mailbox, Message
from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.context import BusContext
from neuralcore.messaging.errors import BadHandler
from neuralcore.messaging.metrics import SubscriptionMetrics
from neuralcore.messaging.retry import RetryPolicy
from neuralcore.messaging.transport import Cursor

if TYPE_CHECKING:
    from neuralcore._native import Overflow
    from neuralcore.messaging.settle import Settlement
    from neuralcore.messaging.subscription import Subscription

__all__ = ["Intake", "Terms", "resolve"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Where an intake listens and how it settles: the part of a subscription that all members share."""

    pattern: str
    group: str | None
    broadcast: bool
    capacity: int
    overflow: Overflow
    retry: RetryPolicy
    filter: Callable[[Message], bool] | None
    hold_keys: bool
    start: Cursor | None
    dead_letter: str | Literal[False] | None
    """A channel, None for the default one, False for none."""
    expired: Literal["count", "dead_letter"]

    def differences(self, other: Terms) -> list[str]:
        return [f.name for f in fields(self) if getattr(self, f.name) != getattr(other, f.name)]


def resolve(
    pattern: str,
    channel: ChannelConfig,
    context: BusContext,
    *,
    group: str | None,
    broadcast: bool,
    capacity: int | None,
    overflow: Overflow | None,
    filter: Callable[[Message], bool] | None,
    retry: RetryPolicy | None,
    hold_keys: bool,
    start: Cursor | None,
    dead_letter: str | Literal[False] | None,
    expired: Literal["count", "dead_letter"],
) -> Terms:
    """What a subscription asked for, then its channel's configuration, then the bus's defaults."""
    if group is not None and broadcast:
        raise ValueError("group= and broadcast=True exclude each other: a group shares messages, a broadcast does not")
    return Terms(
        pattern=pattern,
        group=group,
        broadcast=broadcast,
        capacity=capacity or channel.capacity or context.capacity,
        overflow=overflow or channel.overflow or context.overflow,
        retry=retry or context.retry,
        filter=filter,
        hold_keys=hold_keys,
        start=start,
        dead_letter=channel.dead_letter if dead_letter is None else dead_letter,
        expired=expired,
    )


class Intake:
    """Made by the bus, attached by its link, served by its members' workers."""

    __slots__ = ("ending", "id", "mailbox", "members", "settlement", "streams", "terms")

    def __init__(self, id: int, terms: Terms, mailbox: Mailbox, settlement: Settlement) -> None:
        self.id = id
        self.terms = terms
        self.mailbox = mailbox
        self.settlement = settlement
        self.members: list[Subscription] = []
        self.ending = False
        """It takes no new members: the next one opens an intake of its own."""
        self.streams = 0
        """Open streams on it; with no members and no streams it ends."""

    def join(self, terms: Terms) -> None:
        """Check that a new member's terms are those of the others."""
        differences = self.terms.differences(terms)
        if differences:
            raise BadHandler(
                f"members of group {terms.group!r} on {terms.pattern!r} must agree, but the new one differs in "
                f"{', '.join(differences)}"
            )

    def metrics(self) -> SubscriptionMetrics:
        return SubscriptionMetrics.of(
            self.mailbox.stats(),
            self.mailbox.depths(),
            pattern=self.terms.pattern,
            name=", ".join(member.name for member in self.members),
            group=self.terms.group,
            dead_lettered=self.settlement.dead_lettered,
        )

    @property
    def deserted(self) -> bool:
        return not self.members and not self.streams

    @property
    def concurrency(self) -> int:
        """How many of its messages may be handled at once."""
        return self.streams + sum(member.concurrency for member in self.members)
