"""Publishes that wait because the store is full: one lane a channel, in order, offered again and again."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence

from neuralcore.messaging.context import BusContext
from neuralcore.messaging.remote.work import Work
from neuralcore.messaging.retry import RetryPolicy

__all__ = ["Lanes"]

_AGAIN = RetryPolicy(base=0.002, cap=0.25)


class Lanes:
    """A newer publish never overtakes one that waits on its channel."""

    def __init__(self, context: BusContext, offer: Callable[[Sequence[Work]], None]) -> None:
        self._context = context
        self._offer = offer
        self._lanes: dict[str, deque[Work]] = {}
        self._tries: Counter[str] = Counter()

    def __bool__(self) -> bool:
        """Some wait."""
        return bool(self._lanes)

    def join(self, work: Work) -> bool:
        """Queue a publish behind those that wait; False when none do."""
        lane = None if work.publish is None else self._lanes.get(work.publish.channel)
        if lane is None:
            return False
        lane.append(work)
        return True

    def refused(self, work: Work) -> None:
        """It found the store full."""
        assert work.publish is not None
        if self.join(work):
            return
        channel = work.publish.channel
        self._lanes[channel] = deque([work])
        self._tries[channel] += 1
        delay = _AGAIN.delay(self._tries[channel], self._context.rng)
        self._context.loop.call_later(delay, self._ask_again, channel)

    def took(self, channel: str) -> None:
        """The store has room."""
        if self._tries:
            self._tries.pop(channel, None)

    def clear(self) -> list[Work]:
        """All that wait, and the end of their waiting."""
        left = [work for lane in self._lanes.values() for work in lane]
        self._lanes.clear()
        return left

    def _ask_again(self, channel: str) -> None:
        self._offer(self._lanes.pop(channel, ()))
