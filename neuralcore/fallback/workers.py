"""The workers of a mailbox, and the rule for waking them.

A push wakes an idle worker only when none is active: running, or chosen and about to run. An active worker looks at
the queue again before it rests, and one that suspends inside its handler hands over what is left. So a burst wakes
one worker once, and no message waits unseen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from neuralcore.fallback.pump import Pump
    from neuralcore.fallback.waker import Waker

__all__ = ["Workers"]


class Workers:
    """Changed only under the mailbox's lock; what is to be woken is returned, and woken without it."""

    __slots__ = ("_active", "_blocked", "_idle", "_pumps", "_watchers", "resting")

    def __init__(self) -> None:
        self._active = 0
        self._idle: list[Waker] = []
        self._watchers: list[Waker] = []
        self._pumps: WeakSet[Pump] = WeakSet()
        self._blocked: dict[Pump, int] = {}
        self.resting = False
        """Somebody waits and nobody is active: a push has to wake."""

    def join(self, pump: Pump) -> None:
        self._pumps.add(pump)

    def leave(self, pump: Pump) -> None:
        self._pumps.discard(pump)
        self._blocked.pop(pump, None)

    def goes_on(self) -> None:
        self._active += 1
        self.resting = False

    def goes_away(self) -> None:
        self._active -= 1
        if not self._active:
            self._update()

    def rest(self, waker: Waker) -> None:
        if waker.worker:
            self._active -= 1
            self._idle.append(waker)
        else:
            self._watchers.append(waker)
        self._update()

    def withdraw(self, waker: Waker) -> None:
        """It stopped waiting; had it been chosen already, it is not active after all."""
        if waker.gone:
            return
        waiting = self._idle if waker.worker else self._watchers
        if waker in waiting:
            waiting.remove(waker)
        elif waker.worker:
            self._active -= 1
        self._update()

    def stranded(self) -> bool:
        """Nobody rests who could be woken: the loops of all workers are closed."""
        return bool(self._idle) and self._idle[-1].loop.is_closed() and self.bury()

    def bury(self) -> bool:
        """Workers whose loops are closed have left. True when they were the last."""
        dead = [pump for pump in self._pumps if pump._waker is not None and pump._waker.loop.is_closed()]
        for pump in dead:
            assert pump._waker is not None
            pump._waker.gone = True
            self.leave(pump)
        self._idle = [waker for waker in self._idle if not waker.loop.is_closed()]
        self._update()
        return bool(dead) and not self._pumps and not self._watchers

    def choose(self) -> list[Waker]:
        """Whom to wake for new work, when somebody rests."""
        chosen = self._watchers
        if chosen:
            self._watchers = []
        if self._idle:
            chosen = [*chosen, self._idle.pop()]
            self._active += 1
        self.resting = False
        return chosen

    def choose_all(self) -> list[Waker]:
        chosen = self._watchers + self._idle
        self._active += len(self._idle)
        self._watchers = []
        self._idle = []
        self.resting = False
        return chosen

    def summon(self, waker: Waker) -> bool:
        """Choose this one; False when it does not wait."""
        if waker not in self._idle:
            return False
        self._idle.remove(waker)
        self.goes_on()
        return True

    def block(self, pump: Pump, used: int) -> bool:
        """The handler of this pump is about to wait for a slot; False when no slot could ever come free.

        That is so when every worker waits like this, or when their own messages hold all slots.
        """
        blocked = {pump, *self._blocked}
        if len(blocked) >= len(self._pumps) or sum(each._held() for each in blocked) >= used:
            return False
        self._blocked[pump] = self._blocked.get(pump, 0) + 1
        return True

    def unblock(self, pump: Pump) -> None:
        waits = self._blocked.pop(pump, 0) - 1
        if waits > 0:
            self._blocked[pump] = waits

    def _update(self) -> None:
        self.resting = not self._active and bool(self._idle or self._watchers)
