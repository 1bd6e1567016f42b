"""What one consumer is handed comes on two connections, and is taken in the order in which the server handed it out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Turns"]


class Turns:
    """The server numbers them from 1. Answers to fetches wait for their turn, what comes unasked is kept for it."""

    def __init__(self) -> None:
        self.last = 0
        """All up to this one have been taken."""
        self._early: dict[int, Callable[[], None]] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._ended = False

    def came(self, turn: int, take: Callable[[], None]) -> None:
        if turn == self.last + 1:
            take()
            self.took(turn)
        else:
            self._early[turn] = take

    async def reach(self, turn: int) -> bool:
        """Wait until it is the next; False when those before it are never to come."""
        while self.last < turn - 1 and not self._ended:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        return not self._ended

    def took(self, turn: int) -> None:
        self.last = turn
        while self._early and (take := self._early.pop(self.last + 1, None)) is not None:
            take()
            self.last += 1
        self._wake()

    def end(self) -> None:
        """Whatever has not come is given back by other means."""
        self._ended = True
        self._early.clear()
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
