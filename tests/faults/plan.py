"""How long the fault runs are, by which seed they go, and what they have to say.

``NEURALCORE_FAULTS=long`` makes hundreds of injections; ``NEURALCORE_SEED`` is 7 unless given.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Final, TypeVar

import pytest

from tests.faults.disks import SmallDisk
from tests.faults.history import Story
from tests.faults.report import Entry, Figures
from tests.faults.shims import NoCompiler, available

__all__ = [
    "ENTRIES",
    "LONG",
    "SEED",
    "begin",
    "figures",
    "long_only",
    "needs_compiler",
    "needs_mount",
    "some",
    "tell",
    "times",
]

LONG: Final = os.environ.get("NEURALCORE_FAULTS") == "long"
SEED: Final = int(os.environ.get("NEURALCORE_SEED", "7"))
ENTRIES: Final[dict[str, list[Entry]]] = {}
"""By transport; printed after the run."""
_current: Final = [""]

long_only = pytest.mark.skipif(not LONG, reason="only in the long form: make faults")
needs_compiler = pytest.mark.skipif(not available(), reason=str(NoCompiler()))
needs_mount = pytest.mark.skipif(bool(SmallDisk.why_not()), reason=SmallDisk.why_not() or "-")

T = TypeVar("T")


def some(short: int, items: Sequence[T]) -> Sequence[T]:
    """The first few of them, or all in the long form."""
    return items if LONG else items[:short]


def times(short: int, long: int) -> int:
    return long if LONG else short


def figures(fault: str, injected: int, *, note: str = "", **counts: int) -> Figures:
    """Of a run without a journal."""
    return Figures(seed=SEED, faults=Counter({fault: injected}), note=note, **counts)


def begin(transport: str) -> None:
    """A test of this transport begins: what is told is its."""
    _current[0] = transport


def tell(row: int, fault: str, found: Story | Figures, note: str = "") -> None:
    """What came of a test, for the report: its row of the matrix, and what was done, the same in each round."""
    entry = Entry(row, fault, found if isinstance(found, Figures) else Figures.of(found, note))
    ENTRIES.setdefault(_current[0], []).append(entry)
