"""Whether it adds up: reads what the processes wrote, after the run, and asks neither bus nor store."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from examples.cluster.evidence import Event, Evidence
from examples.cluster.shop import PACKING
from examples.cluster.story import Acts, Outage, Restart
from examples.cluster.worker import WORK
from tests.faults.history import Story

__all__ = ["Check", "TakeOver", "Verdict"]

NOTICING = 1 / 3
"""Of a lease: those that live look after the others with each heartbeat."""
SLACK = 2.0
"""Seconds, for a rebalance of Kafka's, which waits for running handlers, and for a busy machine."""
ON_ITS_WAY = 1.0
"""Seconds: an acknowledgement that was younger when its host died or was cut off may not have arrived."""


@dataclass(frozen=True)
class Check:
    what: str
    met: bool
    seen: str

    def line(self) -> str:
        return f"{'ok    ' if self.met else 'FAILED'}  {self.what}: {self.seen}"


@dataclass(frozen=True)
class TakeOver:
    """How long the messages in the hands of an outage's host took to begin on another one."""

    outage: Outage
    seconds: list[float]
    never: int
    lease: float

    @property
    def allowed(self) -> float:
        """Leases end, others notice, and what may have killed its process is handled one at a time."""
        return self.lease * (1 + NOTICING) + WORK * len(self.outage.hand) + SLACK

    def check(self) -> Check:
        longest = max(self.seconds, default=0.0)
        met = bool(self.seconds) and not self.never and longest <= self.allowed
        seen = f"{len(self.seconds)} messages, the last after {longest:.1f} s of {self.allowed:.1f} s allowed"
        return Check(f"what {self.outage.host} had in hand when it was {self.outage.kind} was taken over", met, seen)


class Verdict:
    def __init__(self, evidence: Evidence, acts: Acts, *, lease: float) -> None:
        self.evidence = evidence.read()
        self.acts = acts
        self.lease = lease
        self.story = Story.read(*evidence.files, groups=[PACKING])
        self.take_overs = [self._take_over(outage) for outage in acts.outages]

    # What happened to the orders

    @property
    def lost(self) -> set[str]:
        """Acknowledged, and no handler got to its end."""
        return self.story.groups[PACKING].lost

    @property
    def duplicated(self) -> set[str]:
        """Handled to the end more than once."""
        return self.story.groups[PACKING].repeated

    @property
    def unexplained(self) -> set[str]:
        """Duplicates that no outage accounts for: nothing was settled by a host that could not tell the store."""
        return {id for id in self.duplicated if not any(self._untold(e) for e in self.evidence.settled[id])}

    @property
    def doubled(self) -> set[str]:
        """Duplicates of the rolling restart: nobody died, so there is no excuse."""
        return {id for id in self.duplicated if all(map(self._rolling, self.evidence.settled[id]))}

    @property
    def phantoms(self) -> set[str]:
        """Handled, and never published, or published with other contents."""
        placed = {event.id: event.payload for event in self.evidence.of("attempted")}
        delivered = itertools.chain.from_iterable(self.evidence.delivered.values())
        return {event.id for event in delivered if placed.get(event.id) != event.payload}

    # What happened to the questions

    def answered(self, host: str) -> tuple[int, int]:
        """How many of a host's questions, and how many of them by another host."""
        by = [event.payload["host"] for event in self.evidence.of("answered") if event.host == host]
        return len(by), sum(other != host for other in by)

    @property
    def unanswered(self) -> list[Event]:
        """Of those that were asked while the hosts were restarted one by one, and by somebody who lived to tell."""
        asked = {event.id for event in self.evidence.of("asked") if self._rolling(event)}
        return [event for event in self.evidence.of("unanswered") if event.id in asked]

    # Whether that is as promised

    def checks(self) -> list[Check]:
        return [
            _none("acknowledged and lost", self.lost),
            _none("handled, but never published like that", self.phantoms),
            _none("handled twice in the rolling restart", self.doubled),
            Check("nothing is left in the store", self.acts.left == 0, str(self.acts.left)),
            *map(self._drained, self.acts.restarts),
            _none("asked during the rolling restart and not answered", {e.id for e in self.unanswered}),
            *(self._asked_elsewhere(host) for host in self._hosts()),
            *(take_over.check() for take_over in self.take_overs),
            Check("processes ended when told", not any(self.acts.codes), f"exit codes {sorted(set(self.acts.codes))}"),
            *(self._back(outage) for outage in self.acts.outages if outage.kind == "cut off"),
        ]

    def table(self) -> str:
        history = self.story.groups[PACKING]
        rows: list[tuple[str, object]] = [
            ("published", len(self.story.attempted)),
            ("acknowledged", len(self.story.acked)),
            ("settled", len(history.done)),
            ("lost", len(self.lost)),
            ("duplicated", len(self.duplicated)),
            ("… without an outage", len(self.unexplained)),
            ("phantom", len(self.phantoms)),
            ("left in the store", self.acts.left),
            ("questions answered", len(self.evidence.of("answered"))),
            ("… by another host", sum(self.answered(host)[1] for host in self._hosts())),
            ("… not answered", len(self.evidence.of("unanswered"))),
        ]
        for one in self.take_overs:
            times = f"{min(one.seconds):.1f} to {max(one.seconds):.1f} s" if one.seconds else "–"
            rows.append((f"{one.outage.host} {one.outage.kind}: take-over of {len(one.seconds)}", times))
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:{width}}  {value!s:>12}" for name, value in rows)

    def _hosts(self) -> list[str]:
        return sorted({event.host for event in self.evidence.of("asked")})

    def _take_over(self, outage: Outage) -> TakeOver:
        found = [self.evidence.taken_over(event, outage.pids, outage.began) for event in outage.hand]
        seconds = [at - outage.began for at in found if at is not None]
        return TakeOver(outage, sorted(seconds), len(outage.hand) - len(seconds), self.lease)

    def _untold(self, settled: Event) -> bool:
        return any(
            settled.pid in outage.pids and outage.before - ON_ITS_WAY < settled.at < outage.ended + self.lease
            for outage in self.acts.outages
        )

    def _rolling(self, event: Event) -> bool:
        return self.acts.restarts[0].began <= event.at <= self.acts.restarts[-1].ended

    def _drained(self, restart: Restart) -> Check:
        reports = [e.payload for e in self.evidence.of("closed") if e.pid in restart.pids]
        cut_short = self.evidence.unfinished(restart.pids)
        meanwhile = sum(restart.began <= at <= restart.ended for at in self.evidence.acked.values())
        ended_well = restart.codes == [0] * len(restart.pids) and len(reports) == len(restart.pids)
        met = ended_well and not cut_short and all(map(_clean, reports)) and meanwhile > 0
        seen = f"{len(reports)} processes, {len(cut_short)} handlers cut short, {meanwhile} messages placed meanwhile"
        return Check(f"{restart.host} was restarted under load", met, seen)

    def _asked_elsewhere(self, host: str) -> Check:
        answered, elsewhere = self.answered(host)
        return Check(f"other hosts answered {host}", elsewhere > 0, f"{elsewhere} of {answered} questions")

    def _back(self, outage: Outage) -> Check:
        placed = {event.id for event in self.evidence.of("attempted") if event.at > outage.ended}
        new = {e.pid for e in _each(self.evidence) if e.pid in outage.pids and e.at > outage.ended and e.id in placed}
        seen = f"{len(new)} of {len(outage.pids)} processes handled orders that were placed later"
        return Check(f"{outage.host} takes part again", new == outage.pids, seen)


def _each(evidence: Evidence) -> Iterator[Event]:
    return itertools.chain.from_iterable(evidence.delivered.values())


def _clean(report: dict[str, Any]) -> bool:
    return bool(report["drained"]) and not report["interrupted"]


def _none(what: str, found: set[str]) -> Check:
    shown: Sequence[str] = sorted(found)[:3]
    return Check(what, not found, f"{len(found)} {', '.join(shown)}".strip() if found else "none")
