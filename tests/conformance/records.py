"""What came of every promise on every set-up: docs/conformance.json, as the suite's pytest plugin writes it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path

from neuralcore.testing.conformance import catalogue
from tests.conformance.setups import SETUPS, Setup

__all__ = ["Column", "Mark", "Records", "gaps", "load", "mark", "merged", "save"]


class Mark(Enum):
    PASSED = "✓"
    FAILED = "✗"
    SKIPPED = "–"
    NOT_RUN = "?"


@dataclass(frozen=True, slots=True)
class Column:
    against: str = ""
    python: str = ""
    results: Mapping[str, str] = field(default_factory=dict)
    """By promise: ``passed``, ``failed: why``, ``skipped: why``."""


Records = dict[str, Column]

GOOD_REASONS = ("not declared: ", "unproven: ", "left out: ")


def mark(column: Column, promise: str) -> tuple[Mark, str]:
    """What a cell shows, and why, where it is not passed."""
    result = column.results.get(promise)
    if result is None:
        return Mark.NOT_RUN, "not run"
    outcome, _, why = result.partition(": ")
    return Mark[outcome.upper()], why or ("" if outcome == "passed" else "nothing was said")


def gaps(records: Records, setups: Iterable[Setup] = SETUPS) -> list[str]:
    """What a table that is published must not have: what failed, what was not run, what was skipped without need."""
    found = []
    for setup in setups:
        column = records.get(setup.name, Column())
        for promise in map(str, catalogue()):
            shown, why = mark(column, promise)
            if shown is not Mark.PASSED and not (shown is Mark.SKIPPED and why.startswith(GOOD_REASONS)):
                found.append(f"{shown.value} {setup.name} {promise}: {why}")
    return found


def merged(before: Column, now: Column) -> Column:
    """A column of which a part was run again."""
    return Column(now.against or before.against, now.python or before.python, {**before.results, **now.results})


def load(path: Path) -> Records:
    if not path.exists():
        return {}
    return {name: Column(**column) for name, column in json.loads(path.read_text(encoding="utf-8")).items()}


def save(path: Path, records: Records) -> None:
    """In the order of the table, without what is no longer there."""
    kept = {}
    for setup in SETUPS:
        column = records.get(setup.name, Column())
        results = {name: column.results[name] for name in map(str, catalogue()) if name in column.results}
        kept[setup.name] = {**asdict(column), "results": results}
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
