"""What one intake has leased and not settled, and how much more it can take."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from neuralcore._core import Clock, Message
from neuralcore.messaging.intake import Intake
from neuralcore.messaging.remote.pace import Pace
from neuralcore.messaging.transport import Delivery, Demand

__all__ = ["Holding"]

_MOST_URGENT = 16
"""How many urgent messages a full mailbox asks for at a time."""


def _nobody() -> None:
    """No feeder waits yet."""


class Holding:
    """Settling is from any thread, the rest on the home loop."""

    def __init__(self, clock: Clock) -> None:
        self._messages: dict[Delivery, Message] = {}
        self._pulled: set[Delivery] = set()
        """Those of them that a stream has handed out."""
        self._pace = Pace(clock)
        self._low = -1
        """When no more than this many are held, the feeder is to be woken."""
        self.on_room: Callable[[], None] = _nobody

    def __len__(self) -> int:
        return len(self._messages)

    def __contains__(self, delivery: Delivery) -> bool:
        return delivery in self._messages

    def begin(self, delivery: Delivery, message: Message) -> None:
        if not self._messages:
            self._pace.busy()
        self._messages[delivery] = message

    def replace(self, delivery: Delivery, message: Message) -> None:
        """The one that a handler gets: a mailbox may have made another one of it on the way."""
        if delivery in self._messages:
            self._messages[delivery] = message

    def end(self, delivery: Delivery, *, handled: bool = True) -> Message | None:
        """It is settled, given back or lost; None when it had ended already."""
        message = self._messages.pop(delivery, None)
        if message is None:
            return None
        self._pulled.discard(delivery)
        if handled:
            self._pace.finished()
        left = len(self._messages)
        if not left:
            self._pace.idle()
        if left <= self._low:
            self._wake()
        return message

    def mine(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return [delivery for delivery in deliveries if delivery in self._messages]

    def window(self, intake: Intake) -> int:
        """About one second of work, at least a message (or a batch) a worker, at most what the mailbox holds."""
        return self._pace.window(max(1, intake.at_once), intake.mailbox.capacity)

    def demand(self, intake: Intake) -> Demand:
        """What may be fetched now; when that is nothing, only what is more urgent than what waits."""
        window = self.window(intake)
        room = self._room(intake, window)
        if room > 0:
            self._low = -1
            return Demand(room)
        self._low = intake.mailbox.capacity if self._pulled else _low(window, intake.at_once)
        if len(self._messages) <= self._low and (room := self._room(intake, window)) > 0:
            self._low = -1  # another thread has settled meanwhile, and had nobody to wake
            return Demand(room)
        waiting = len(self._messages) - max(intake.at_once, len(self._pulled))
        rank = intake.mailbox.most_relaxed() if waiting > 0 else None
        return Demand(min(waiting, _MOST_URGENT), rank) if rank else Demand(0)

    def exceeds(self, intake: Intake, window: int, coming: int = 0) -> bool:
        """More came than is wanted, because it is more urgent; or does once so many come."""
        return self._room(intake, window) < coming

    def pulled(self, delivery: Delivery) -> None:
        """Somebody has it who may collect others before settling it: it is none of those that wait here."""
        if delivery in self._messages:
            self._pulled.add(delivery)
        if self._low >= 0:
            self._wake()

    def _room(self, intake: Intake, window: int) -> int:
        room = window - len(self._messages) + len(self._pulled)
        return min(room, intake.mailbox.capacity - len(self._messages)) if self._pulled else room

    def _wake(self) -> None:
        self._low = -1
        self.on_room()


def _low(window: int, at_once: int) -> int:
    """Room for one is worth a fetch when there are few; otherwise half of the window is, while workers are busy."""
    return window - 1 if window <= 2 * at_once else max(at_once, window // 2)
