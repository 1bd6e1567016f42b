"""Transactions that are wanted: a producer has one at a time, so all that wait go together in the next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from neuralcore.messaging.errors import NotStored
from neuralcore.messaging.transport import Settlement
from neuralcore_transports.kafka.publisher import Outgoing
from neuralcore_transports.kafka.transactor import InDoubt

__all__ = ["Job", "Jobs"]


class Job:
    """What happens together, and becomes known when ``done`` is."""

    __slots__ = ("company", "deadline", "done", "records", "settlement")

    def __init__(self, records: Sequence[Outgoing], settlement: Settlement | None = None, *, patience: float) -> None:
        """``patience``: seconds after which it is not tried again."""
        loop = asyncio.get_running_loop()
        self.records = records
        self.settlement = settlement
        self.company: Exception | None = None
        """What those failed of with which it was tried: it goes alone now."""
        self.deadline = loop.time() + patience
        self.done: asyncio.Future[None] = loop.create_future()

    def end(self, error: Exception | None = None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)

    def end_late(self) -> None:
        error = self.company
        if not isinstance(error, NotStored):  # another's, perhaps
            error = NotStored("kafka", "its transaction was not tried in time")
        self.end(error)


class Jobs:
    """What failed in company is tried again alone: perhaps it was another's fault. As long as it has time: where no
    broker answers, each would wait for that once more.
    """

    def __init__(self) -> None:
        self._waiting: deque[Job] = deque()
        self._over: Exception | None = None

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, job: Job) -> None:
        if self._over is None:
            self._waiting.append(job)
        else:
            job.end(self._over)

    def take(self) -> list[Job]:
        """Those that may go together now."""
        now = asyncio.get_running_loop().time()
        taken: list[Job] = []
        while self._waiting:
            job = self._waiting[0]
            if job.company is not None and taken:
                break
            self._waiting.popleft()
            if job.company is None:
                taken.append(job)
            elif now < job.deadline:
                return [job]
            else:
                job.end_late()
        return taken

    def failed(self, jobs: Sequence[Job], error: Exception) -> None:
        if len(jobs) == 1 or isinstance(error, InDoubt):
            for job in jobs:
                job.end(error)
        elif self._over is not None:
            for job in jobs:
                job.end(self._over)
        else:
            for job in jobs:
                job.company = error
            self._waiting.extendleft(reversed(jobs))

    def end_late(self) -> None:
        """Those that have waited too long."""
        now = asyncio.get_running_loop().time()
        late = [job for job in self._waiting if job.deadline <= now]
        for job in late:
            self._waiting.remove(job)
            job.end_late()

    def close(self, error: Exception) -> None:
        """Nothing is tried any more: who waits, and who comes later, is told this."""
        self._over = error
        while self._waiting:
            self._waiting.popleft().end(error)
