"""Acknowledgements that are handed over as one: they share a commit, and nearly always one answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final, final

from neuralcore._core import Message
from neuralcore.messaging.context import BusContext
from neuralcore.messaging.remote.work import Done, Told, Work
from neuralcore.messaging.transport import Delivery, Outcome, Settlement, SettleStatus

__all__ = ["Acks", "confirm", "lose"]

_ACK: Final = Outcome.ACK


@final
class Acks(Work):
    __slots__ = ("_context", "_messages", "settlements")

    def __init__(self, context: BusContext) -> None:
        super().__init__(persistent=True)
        self.settlements: list[Settlement] = []
        self._messages: list[Message] = []
        self._context = context

    def add(self, message: Message, delivery: Delivery) -> None:
        self.settlements.append(Settlement(delivery, _ACK))
        self._messages.append(message)

    @property
    def items(self) -> int:
        return len(self.settlements)

    def done(self, result: Done) -> None:
        """The same for all of them."""
        for message in self._messages:
            confirm(self._context, message, result)

    def answer(self, statuses: Sequence[SettleStatus]) -> Sequence[tuple[Work, Done]]:
        """One status each. What is not settled by that goes on by itself."""
        if statuses.count(SettleStatus.SETTLED) == len(statuses):
            return ()
        return [
            (part, Done(None, status))
            for part, status in zip(self.parts(), statuses, strict=True)
            if status is not SettleStatus.SETTLED
        ]

    def parts(self) -> Sequence[Work]:
        """Each goes on by itself."""
        return [
            Told(partial(confirm, self._context, message), settlement=settlement, persistent=True)
            for message, settlement in zip(self._messages, self.settlements, strict=True)
        ]


def confirm(context: BusContext, message: Message, result: Done) -> None:
    """The transport has answered its settlement."""
    if result.settled is SettleStatus.LEASE_LOST:
        lose(context, message)


def lose(context: BusContext, message: Message) -> None:
    message._lose_lease()
    context.count("leases_lost")
