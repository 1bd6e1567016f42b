"""What a fault test has to say: one line of figures each, and one table of promises and faults for all of them.

>>> found = Figures.of(story, note="crashes=4")
>>> table([Entry(12, "a message that kills its process", found)])
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.faults.history import Story, nearest_rank

__all__ = ["PROMISES", "Entry", "Figures", "merged", "table"]

PROMISES = {
    1: "what was acknowledged survives its producer",
    2: "what a dead consumer had is delivered again, its neighbours lose no attempt",
    3: "what was acknowledged survives the server (Redis: with an append-only file that is always synced)",
    4: "`full` loses nothing, `normal` keeps the file intact, `off` promises nothing; Redis has what it synced first",
    5: "time-outs, no hang; it goes on when the server does",
    6: "others take over after the lease, a late ack is harmless",
    7: "a clear error, never a false ack; it goes on when there is room",
    8: "tried again; what was stored is stored once",
    9: "detected by the deadline; it goes on when the network does",
    10: "correct, however slow the network",
    11: "memory is bounded",
    12: "dead-lettered after at most N + 1 crashes, the others flow",
    13: "no early or lost retry, lease or delay",
    14: "never a wrong message; noticed where there is a checksum",
    15: "it opens, and what is left is a prefix of whole commits",
    16: "groups are made anew, loss is reported, what comes later is safe",
    17: "counted, and nothing waits for what is gone",
    18: "what was acknowledged survives every restart",
    19: "nothing is lost, and work goes on, while members come and go",
    20: "the lease is extended; past `max_hold` it is revoked without a stale ack",
    21: "one effect",
    22: "heartbeats go on, a warning names the handler",
    23: "settled or redeliverable, nothing leaks",
    24: "the interpreter exits; a forked child fails clearly",
    26: "no corruption, no lost update",
    27: "refused before it is stored, or dead-lettered; bounded memory",
    28: "dead-lettered or passed, never a crash loop",
    30: "drained or given back",
}
"""By the row of the fault matrix."""

UNKNOWN = "–"
COLUMNS = ("attempted", "acked", "delivered", "settled", "lost", "duplicated", "phantom")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """None: the test has no such thing, as where nothing is settled."""

    seed: int | None
    faults: Counter[str] = field(default_factory=Counter)
    attempted: int | None = None
    acked: int | None = None
    delivered: int | None = None
    settled: int | None = None
    lost: int | None = None
    """Acknowledged, and neither settled nor dead-lettered in the end, or gone without a word."""
    duplicated: int | None = None
    """Settled more than once: handlers run at least once."""
    phantom: int | None = None
    """Delivered and never attempted, or with other contents."""
    recoveries: Sequence[float] = ()
    note: str = ""

    @classmethod
    def of(cls, story: Story, note: str = "", faults: Counter[str] | None = None) -> Figures:
        """``faults``: beside those in the journal."""
        histories = story.groups.values()
        extra = {
            "refused": len(story.refused),
            "dead": sum(len(history.dead) for history in histories),
            "redelivered": story.redelivered,
            "reordered": sum(map(len, story.reordered.values())),
        }
        return cls(
            seed=story.seed,
            faults=Counter(story.faults) + (faults or Counter()),
            attempted=len(story.attempted),
            acked=len(story.acked),
            delivered=sum(len(history.begun) for history in histories),
            settled=sum(len(history.done) for history in histories),
            lost=sum(map(len, story.unsettled.values())),
            duplicated=sum(map(len, story.duplicated.values())),
            phantom=sum(map(len, story.phantoms.values())),
            recoveries=story.recoveries,
            note=" ".join([*(f"{name}={count}" for name, count in extra.items() if count), note]).strip(),
        )

    def line(self) -> str:
        faults = ", ".join(f"{name} ×{count}" for name, count in self.faults.items()) or "none"
        told = " ".join(f"{name}={shown(getattr(self, name))}" for name in COLUMNS)
        recovery = "recovery p50={} p99={}".format(*self.recovery())
        return f"seed={shown(self.seed)} faults=[{faults}] {told} {recovery}{' | ' if self.note else ''}{self.note}"

    def cells(self) -> list[str]:
        return [shown(self.faults.total()), *(shown(getattr(self, name)) for name in COLUMNS), *self.recovery()]

    def recovery(self) -> tuple[str, str]:
        if not self.recoveries:
            return UNKNOWN, UNKNOWN
        return f"{nearest_rank(self.recoveries, 50):.3f}s", f"{nearest_rank(self.recoveries, 99):.3f}s"

    def __add__(self, other: Figures) -> Figures:
        """Of two runs of one test."""
        summed = {name: _sum(getattr(self, name), getattr(other, name)) for name in COLUMNS}
        return Figures(
            seed=self.seed,
            faults=self.faults + other.faults,
            recoveries=[*self.recoveries, *other.recoveries],
            **summed,
        )


@dataclass(frozen=True, slots=True)
class Entry:
    row: int
    fault: str
    figures: Figures

    def line(self) -> str:
        return f"{self.row:2} {self.fault}: {self.figures.line()}"


def merged(entries: Iterable[Entry]) -> list[Entry]:
    """One for each row and fault, in order."""
    found: dict[tuple[int, str], Figures] = {}
    for entry in sorted(entries, key=lambda entry: entry.row):
        where = entry.row, entry.fault
        found[where] = found[where] + entry.figures if where in found else entry.figures
    return [Entry(row, fault, figures) for (row, fault), figures in found.items()]


def table(entries: Iterable[Entry], *, title: str = "") -> str:
    """In Markdown."""
    head = ["row", "fault", "injected", *COLUMNS, "recovery p50", "recovery p99"]
    lines = [head, ["--:", "---", *["--:"] * (len(head) - 2)]]
    row = 0
    for entry in merged(entries):
        if entry.row != row:
            row = entry.row
            lines.append([f"**{row}**", f"**{PROMISES[row]}**", *[""] * (len(head) - 2)])
        lines.append(["", entry.fault, *entry.figures.cells()])
    body = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return f"{title}\n\n{body}\n" if title else f"{body}\n"


def shown(value: int | None) -> str:
    return UNKNOWN if value is None else str(value)


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None and other is None else (one or 0) + (other or 0)
