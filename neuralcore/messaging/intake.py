"""An intake: the mailbox of one group (or of one broadcast) on one pattern, and those it feeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuralcore._core import Mailbox
from neuralcore.messaging.context import BusContext
from neuralcore.messaging.metrics import SubscriptionMetrics
from neuralcore.messaging.terms import Terms

if TYPE_CHECKING:
    from neuralcore.messaging.settle import Settlement
    from neuralcore.messaging.subscription import Subscription

__all__ = ["Intake"]


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

    def join(self, terms: Terms, context: BusContext) -> None:
        """Check that a new member's terms are those of the others."""
        self.terms.agree(terms, context)

    def metrics(self) -> SubscriptionMetrics:
        return SubscriptionMetrics.of(
            self.settlement.stats(),
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
    def at_once(self) -> int:
        """How many of its messages may be with handlers at once: batches have what the mailbox can hold."""
        workers = sum(member.concurrency for member in self.members)
        wanted = sum(member.concurrency * max(1, member.batch) for member in self.members)
        return self.streams + min(wanted, max(workers, self.mailbox.capacity))
