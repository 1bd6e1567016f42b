"""What happens in the demo, from the first page to the drained bus, and whether its numbers add up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from neuralcore.cli.demo.stopwatch import Stopwatch
from neuralcore.cli.demo.team import PAGE, PASSAGE, RARITY, SCORED, SUMMARISERS, SUMMARY, Scored, Team, Tell
from neuralcore.cli.demo.text import TORN, Page, Passage, pages, passages
from neuralcore.messaging import BusMetrics, CloseReport, MessageBus, Priority

__all__ = ["CHANNELS", "DEAD", "Check", "Outcome", "Story"]

DEAD = f"_dlq.{PAGE}"
CHANNELS = (PAGE, PASSAGE, RARITY, SCORED, SUMMARY, DEAD)
PATIENCE = 60.0
"""Seconds beyond the thinking."""
QUESTION = "What happens to a message whose handler was killed? It is delivered again, and counted as suspect."


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    seconds: float
    passed: int
    """Messages that waited when the urgent one came, and that it went past."""
    waited: int
    """Messages that were started between the urgent one's publish and its own start."""
    metrics: BusMetrics
    close: CloseReport
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)


class Story:
    """One run. ``watch``, ``team`` and ``total`` may be looked at while it goes on."""

    def __init__(
        self, *, seconds: float, tell: Tell, texts: list[Page] | None = None, bus: MessageBus | None = None
    ) -> None:
        """``seconds``: about how long the thinking takes in all."""
        self.texts = pages() if texts is None else texts
        self.total = sum(len(passages(page)) for page in self.texts if page.title != TORN)
        self._patience = seconds + PATIENCE
        self.watch = Stopwatch()
        self.bus = bus or MessageBus()
        self.team = Team(self.bus, tell, thought=seconds * SUMMARISERS / max(1, self.total))

    async def run(self) -> Outcome:
        """Cancelled, it gives back what is unfinished and closes the bus at once."""
        self.bus.use(self.watch)
        self.team.hire()
        await self.bus.start()
        try:
            return await self._play()
        finally:
            await self.bus.close(drain=False)

    async def _play(self) -> Outcome:
        now = asyncio.get_running_loop().time
        began = now()
        for page in self.texts:
            await self.bus.publish(PAGE, page)
        await self._until(lambda: len(self.team.digest) >= self.total // 3)
        passed, waited = await self._interrupt()
        await self._until(self._finished)
        metrics = self.bus.metrics()
        close = await self.bus.close()
        return Outcome(
            seconds=now() - began,
            passed=passed,
            waited=waited,
            metrics=metrics,
            close=close,
            checks=tuple(self._checks(passed, waited, metrics, close)),
        )

    async def _interrupt(self) -> tuple[int, int]:
        """A reader's question, in the middle of the backlog."""
        team = self.team
        passed, before = self.bus.queue_size(SCORED), len(team.started)
        question = Scored(Passage("a reader asks", 1, QUESTION), 1.0)
        await self.bus.publish(SCORED, question, priority=Priority.CRITICAL)
        await self._until(lambda: Priority.CRITICAL in team.started)
        return passed, [*team.started, Priority.CRITICAL].index(Priority.CRITICAL) - before

    def _finished(self) -> bool:
        team = self.team
        everything = len(team.digest) > self.total and team.buried
        return bool(everything) and team.audited.total() >= len(self.texts) + 3 * self.total + 2

    async def _until(self, reached: Callable[[], bool]) -> None:
        """Give up after a while: then a message is lost, and the sums will say so."""
        loop, changed = asyncio.get_running_loop(), self.team.changed
        deadline = loop.time() + self._patience
        alarm = loop.call_at(deadline, changed.set)
        while not reached() and loop.time() < deadline:
            changed.clear()
            await changed.wait()
        alarm.cancel()

    def _checks(self, passed: int, waited: int, metrics: BusMetrics, close: CloseReport) -> list[Check]:
        team, laps = self.team, self.watch.laps
        different = len({(summary.page, summary.number) for summary in team.digest})
        return [
            _equal("every passage was scored once", team.scored, self.total),
            _equal("every passage, and the question, was summarised and archived", different, self.total + 1),
            _equal("none of them twice", len(team.digest), different),
            _equal("the auditor saw what was published", dict(team.audited), _published(metrics, team.audited)),
            _equal("one request, one reply for each passage", laps[RARITY].handled, self.total),
            _equal("every stumble was retried", metrics.retried, team.stumbled),
            Check("something stumbled", team.stumbled > 0, f"{team.stumbled} times"),
            _equal("one dead letter: the torn page", [m.headers["nc-dlq-origin"] for m in team.buried], [PAGE]),
            Check("the urgent message found a backlog", passed > 0, f"{passed} messages waited"),
            _equal("nothing was started before the urgent message", waited, 0),
            _equal("nothing was dropped, expired or refused", metrics.dropped + metrics.expired + metrics.refused, 0),
            Check("the bus drained", close.drained and not close.abandoned, f"{close.abandoned} abandoned"),
        ]


def _equal(name: str, found: object, expected: object) -> Check:
    return Check(name, found == expected, f"{found!r}" if found == expected else f"{found!r}, expected {expected!r}")


def _published(metrics: BusMetrics, channels: Any) -> dict[str, int]:
    return {channel: metrics.channels[channel].published for channel in channels}
