"""Messages whose earlier owner lost its lease, perhaps because of them: one at a time in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING

from neuralcore._core import Message
from neuralcore.messaging.transport import Delivery

if TYPE_CHECKING:
    from neuralcore.messaging.remote.settlement import RemoteSettlement

__all__ = ["Suspects"]


class Suspects:
    """Lets the next suspect into its mailbox when the one before has ended. On the home loop."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[RemoteSettlement, Delivery, Message]] = deque()
        self._current: Delivery | None = None
        self._stopped = False

    def add(self, settlement: RemoteSettlement, delivery: Delivery, message: Message) -> None:
        self._waiting.append((settlement, delivery, message))
        self._next()

    def ended(self, delivery: Delivery) -> None:
        if delivery is self._current:
            self._current = None
            self._next()

    def stop(self) -> None:
        """Let no more in."""
        self._stopped = True

    def waiting(self, settlement: RemoteSettlement) -> int:
        return sum(owner is settlement for owner, _, _ in self._waiting)

    def take_out(self, settlement: RemoteSettlement) -> list[Message]:
        """Those of one intake that still wait."""
        taken = [message for owner, _, message in self._waiting if owner is settlement]
        self._waiting = deque(entry for entry in self._waiting if entry[0] is not settlement)
        return taken

    def withdraw(self, deliveries: Collection[Delivery]) -> list[Message]:
        """Those of these that still wait, taken out."""
        taken = [message for _, delivery, message in self._waiting if delivery in deliveries]
        self._waiting = deque(entry for entry in self._waiting if entry[1] not in deliveries)
        return taken

    def _next(self) -> None:
        while self._current is None and self._waiting and not self._stopped:
            settlement, delivery, message = self._waiting.popleft()
            if delivery in settlement.holding:
                self._current = delivery
                settlement.offer(message)
