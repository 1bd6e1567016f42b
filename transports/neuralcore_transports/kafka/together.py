"""Transactions that are wanted: a producer has one at a time, so all that wait go together in the next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from neuralcore.messaging.transport import Settlement
from neuralcore_transports.kafka.publisher import Outgoing
from neuralcore_transports.kafka.transactor import InDoubt

__all__ = ["Job", "Jobs"]


class Job:
    """What happens together, and becomes known when ``done`` is."""

    __slots__ = ("alone", "done", "records", "settlement")

    def __init__(self, records: Sequence[Outgoing], settlement: Settlement | None = None) -> None:
        self.records = records
        self.settlement = settlement
        self.alone = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self, error: Exception | None = None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


class Jobs:
    """What failed in company is tried again alone: perhaps it was another's fault."""

    def __init__(self) -> None:
        self._waiting: deque[Job] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, job: Job) -> None:
        self._waiting.append(job)

    def take(self) -> list[Job]:
        """Those that may go together now."""
        taken: list[Job] = []
        while self._waiting and not (taken and self._waiting[0].alone):
            taken.append(self._waiting.popleft())
            if taken[0].alone:
                break
        return taken

    def failed(self, jobs: Sequence[Job], error: Exception) -> None:
        if len(jobs) > 1 and not isinstance(error, InDoubt):
            for job in jobs:
                job.alone = True
            self._waiting.extendleft(reversed(jobs))
            return
        for job in jobs:
            job.end(error)

    def give_up(self, error: Exception) -> None:
        while self._waiting:
            self._waiting.popleft().end(error)
