"""Wakes mailboxes when their delayed messages become due, over the bus's clock and home loop."""

from __future__ import annotations

import asyncio

from neuralcore._core import Mailbox
from neuralcore.messaging.context import BusContext

__all__ = ["Timers"]


class Timers:
    __slots__ = ("_context", "_handles")

    def __init__(self, context: BusContext) -> None:
        self._context = context
        self._handles: dict[Mailbox, asyncio.TimerHandle] = {}

    def due(self, mailbox: Mailbox, monotonic_ns: int) -> None:
        """Have ``mailbox.promote()`` called then. From any thread; replaces what was asked before."""
        self._context.call_home(self._arm, mailbox, monotonic_ns)

    def forget(self, mailbox: Mailbox) -> None:
        handle = self._handles.pop(mailbox, None)
        if handle is not None:
            handle.cancel()

    def _arm(self, mailbox: Mailbox, monotonic_ns: int) -> None:
        self.forget(mailbox)
        delay = max(0, monotonic_ns - self._context.clock.monotonic_ns()) / 1e9
        self._handles[mailbox] = self._context.loop.call_later(delay, self._promote, mailbox)

    def _promote(self, mailbox: Mailbox) -> None:
        self._handles.pop(mailbox, None)
        following = mailbox.promote()
        if following is not None:
            self._arm(mailbox, following)

    def close(self) -> None:
        for handle in self._handles.values():
            handle.cancel()
        self._handles.clear()
