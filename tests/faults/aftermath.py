"""What is left after a power cut, held against what workers had witnessed by then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields

from tests.faults.plan import figures
from tests.faults.powercut import Cut
from tests.faults.report import Figures

__all__ = ["Found", "judged", "summary"]


@dataclass
class Found:
    attempted: int
    acked: int
    delivered: int
    settled: int
    lost: int
    duplicated: int
    phantom: int
    damage: str


def judged(cut: Cut, ids: Collection[str], damage: str = "") -> Found:
    """``ids``: of the messages that are there. One may be gone when its handler had returned, and not before."""
    witnessed = cut.witnessed
    attempted, acked, done = ({line[1:] for line in witnessed if line[0] == kind} for kind in "?+-")
    there = set(ids)
    return Found(
        attempted=len(attempted),
        acked=len(acked),
        delivered=len(there | done),
        settled=len(done),
        lost=len(acked - there - done),
        duplicated=len(ids) - len(there),
        phantom=len(there - attempted),
        damage=damage,
    )


def summary(found: Sequence[Found]) -> Figures:
    """Each cut judges all messages up to it: the counts are sums over the cuts."""
    counts: Counter[str] = Counter()
    for each in found:
        counts.update({field.name: getattr(each, field.name) for field in fields(each) if field.name != "damage"})
    losing, most = sum(bool(each.lost) for each in found), max(each.lost for each in found)
    damaged = sum(bool(each.damage) for each in found)
    note = f"summed over the cuts; cuts that lost anything={losing} (at most {most} each) damaged={damaged}"
    return figures("power cut", len(found), **counts, note=note)
