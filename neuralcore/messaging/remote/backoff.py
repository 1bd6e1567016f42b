"""Trying again after failures of the transport: how long to wait, and when to speak of it."""

from __future__ import annotations

import asyncio
import random

from neuralcore.messaging.context import log
from neuralcore.messaging.retry import RetryPolicy

__all__ = ["Backoff"]

_POLICY = RetryPolicy(base=0.05, cap=2.0)
"""What is back is used again soon; that all clients ask every second whether it is there, costs it nothing."""
_APART = 15.0
"""Seconds after which a failure has nothing to do with the one before: what is tried may work for long."""


class Backoff:
    """For one thing that is tried until it works."""

    __slots__ = ("_failures", "_rng", "_tried", "_what")

    def __init__(self, what: str, rng: random.Random) -> None:
        self._what = what
        self._rng = rng
        self._failures = 0
        self._tried = 0.0

    def worked(self) -> None:
        self._failures = 0

    def failed(self, error: BaseException) -> float:
        """The seconds to wait. Logged ever more rarely, so that an outage does not fill the disk."""
        now = asyncio.get_running_loop().time()
        if now - self._tried > _APART:
            self._failures = 0
        self._failures += 1
        delay = _POLICY.delay(self._failures, self._rng)
        self._tried = now + delay
        if self._failures & (self._failures - 1) == 0:
            log.warning("%s failed (%d in a row), next try in %.2g s: %r", self._what, self._failures, delay, error)
        return delay

    async def wait(self, error: BaseException) -> None:
        await asyncio.sleep(self.failed(error))
