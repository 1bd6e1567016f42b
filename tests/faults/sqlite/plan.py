"""How long the fault runs are, by which seed they go, and what they have to say.

``NEURALCORE_FAULTS=long`` makes hundreds of injections; ``NEURALCORE_SEED`` is 7 unless given.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, TypeVar

import pytest

__all__ = ["LINES", "LONG", "SEED", "long_only", "some", "tell", "times"]

LONG: Final = os.environ.get("NEURALCORE_FAULTS") == "long"
SEED: Final = int(os.environ.get("NEURALCORE_SEED", "7"))
LINES: Final[list[tuple[int, str]]] = []
"""Printed after the run: the row of the matrix, and what came of it."""


long_only = pytest.mark.skipif(not LONG, reason="only in the long form: make faults")

T = TypeVar("T")


def some(short: int, items: Sequence[T]) -> Sequence[T]:
    """The first few of them, or all in the long form."""
    return items if LONG else items[:short]


def times(short: int, long: int) -> int:
    return long if LONG else short


def tell(row: int, what: str, found: object) -> None:
    LINES.append((row, f"{what}: {found}"))
