"""Where a bus is in its life, and what that allows."""

from __future__ import annotations

from typing import Literal, NoReturn

from neuralcore.messaging.context import BusContext
from neuralcore.messaging.errors import Closed, Forked, NotStarted

__all__ = ["Life"]


class Life:
    def __init__(self, context: BusContext) -> None:
        self._context = context
        self.stage: Literal["new", "running", "closing", "closed", "forked"] = "new"

    def check_usable(self) -> None:
        """It is new or runs. Raises Closed, Forked, LoopClosed."""
        if self.stage == "forked":
            raise Forked
        if self.stage in ("closing", "closed"):
            raise Closed
        self._context.check_loop()

    def check_running(self) -> None:
        """Raises NotStarted, Closed, LoopClosed."""
        if self.stage != "running":
            self.refuse()
        self._context.check_loop()

    def check_publishing(self) -> None:
        """It runs, or closes and lets handlers publish. Raises NotStarted, Closed, LoopClosed."""
        if self.stage not in ("running", "closing"):
            self.refuse()
        self._context.check_loop()

    def refuse(self) -> NoReturn:
        """Raises Forked, Closed, or NotStarted: also when another thread has started the bus since the caller asked."""
        if self.stage == "forked":
            raise Forked
        raise Closed if self.stage in ("closing", "closed") else NotStarted
