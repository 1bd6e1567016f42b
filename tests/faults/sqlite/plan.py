"""How long the fault runs are, by which seed they go, and what they have to say.

``NEURALCORE_FAULTS=long`` makes hundreds of injections; ``NEURALCORE_SEED`` is 7 unless given.
"""

from __future__ import annotations

import os
from typing import Final

__all__ = ["LINES", "LONG", "SEED", "tell", "times"]

LONG: Final = os.environ.get("NEURALCORE_FAULTS") == "long"
SEED: Final = int(os.environ.get("NEURALCORE_SEED", "7"))
LINES: Final[list[tuple[int, str]]] = []
"""Printed after the run: the row of the matrix, and what came of it."""


def times(short: int, long: int) -> int:
    return long if LONG else short


def tell(row: int, what: str, found: object) -> None:
    LINES.append((row, f"{what}: {found}"))
