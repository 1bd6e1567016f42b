"""The table of promises and set-ups: docs/conformance.md, and in a terminal."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from string import ascii_lowercase

from neuralcore.testing.conformance import Promise, catalogue
from tests.conformance.records import Column, Mark, Records, gaps, mark
from tests.conformance.setups import SETUPS, Setup

__all__ = ["page", "terminal", "totals"]

HEAD = """\
# Conformance

<!-- Written by `make conformance`: run it again in place of editing. -->

Every promise of the public suite on every set-up, as `make conformance` found it; what it found is also
[there for programs](conformance.json). `make conformance SETUPS="sqlite redis" ONLY=order.fifo` runs a part again.

- ✓: kept, as the check saw it in real servers and processes (in virtual time where the transport lives in one process).
- –: no answer, for the reason below the table. *Not declared*: the transport does not offer it, and says so in its
  `capabilities`; "a store of its own" is what outlives the bus's process. *Unproven*: the harness cannot bring about
  what the check needs. *Left out*: the check expects what the set-up does not have.
"""


def page(records: Records) -> str:
    parts = [HEAD, _summary(records)]
    for group, promises in groupby(catalogue(), key=lambda promise: promise.group):
        parts.append(_section(group, list(promises), records))
    return "\n".join(parts)


def totals(column: Column) -> Counter[Mark]:
    return Counter(mark(column, str(promise))[0] for promise in catalogue())


def _summary(records: Records) -> str:
    """Marks that nobody has are no column."""
    counts = {setup: totals(records.get(setup.name, Column())) for setup in SETUPS}
    marks = [
        each for each in Mark if each in (Mark.PASSED, Mark.SKIPPED) or any(found[each] for found in counts.values())
    ]
    rows = [["set-up", "against", "Python", *(each.value for each in marks)]]
    for setup, found in counts.items():
        column = records.get(setup.name, Column())
        counted = (str(found[each]) for each in marks)
        rows.append([setup.title, column.against or "–", column.python or "–", *counted])
    return _table(rows, ["---", "---", "---", *["--:"] * len(marks)])


def _section(group: str, promises: list[Promise], records: Records) -> str:
    reasons = _Reasons()
    rows = [["promise", *(setup.title for setup in SETUPS)]]
    for promise in promises:
        cells = [reasons.cell(*mark(records.get(setup.name, Column()), str(promise))) for setup in SETUPS]
        rows.append([promise.text, *cells])
    about = (sys.modules[promises[0].check.__module__].__doc__ or "").partition("\n")[0]
    table = _table(rows, ["---", *[":-:"] * len(SETUPS)])
    return "\n".join([f"## {group.capitalize()}\n\n{about}\n", table, *reasons.lines()])


class _Reasons:
    """Each reason of a section has a letter."""

    def __init__(self) -> None:
        self._letters: dict[str, str] = {}

    def cell(self, shown: Mark, why: str) -> str:
        if shown is Mark.PASSED:
            return shown.value
        letter = self._letters.setdefault(why, ascii_lowercase[len(self._letters)])
        return f"{shown.value}&nbsp;{letter}"

    def lines(self) -> list[str]:
        found = [f"- {letter}: {_escaped(why)}" for why, letter in self._letters.items()]
        return [*found, ""] if found else []


def _table(rows: Iterable[list[str]], rule: list[str]) -> str:
    head, *body = [[_escaped(cell) for cell in row] for row in rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [head, rule, *body])


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def terminal(records: Records, setups: Iterable[Setup]) -> str:
    """One sign for each cell; the reasons are on the page, but for those that are no good."""
    columns = {setup: records.get(setup.name, Column()) for setup in setups}
    lines = [f"{'│' * place}┌ {setup.title}" for place, setup in enumerate(columns)]
    for promise in map(str, catalogue()):
        lines += ["".join(mark(column, promise)[0].value for column in columns.values()) + f" {promise}"]
    for setup, column in columns.items():
        counts = (f"{count} {shown.name.lower().replace('_', ' ')}" for shown, count in totals(column).items())
        lines.append(f"{setup.title}: {', '.join(counts)}")
    return "\n".join([*lines, *gaps(records, columns)])
