"""A failing script, cut down: fewer steps, and fewer things in each, for as long as it still fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.transports.histories import Op

__all__ = ["script", "shrink"]


def shrink(ops: Sequence[Op], fails: Callable[[Sequence[Op]], object]) -> list[Op]:
    ops = list(ops)
    while True:
        smaller = next((candidate for candidate in _smaller(ops) if fails(candidate)), None)
        if smaller is None:
            return ops
        ops = smaller


def _smaller(ops: list[Op]) -> Iterator[list[Op]]:
    size = len(ops) // 2
    while size:
        for at in range(len(ops) - size, -1, -size):
            yield ops[:at] + ops[at + size :]
        size //= 2
    for at, op in enumerate(ops):
        for part in _simpler(op):
            yield [*ops[:at], part, *ops[at + 1 :]]


def _simpler(op: Op) -> Iterator[Op]:
    """Without one item of a list, or one field of a dictionary, in it."""
    for at, part in enumerate(op):
        for less in _less(part):
            yield (*op[:at], less, *op[at + 1 :])


def _less(part: Any) -> Iterator[Any]:
    if isinstance(part, list):
        for at in range(len(part)):
            yield part[:at] + part[at + 1 :]
            for less in _less(part[at]):
                yield [*part[:at], less, *part[at + 1 :]]
    elif isinstance(part, dict):
        yield from ({k: v for k, v in part.items() if k != name} for name in part if name not in ("channel", "n"))


def script(ops: Sequence[Op]) -> str:
    """To be pasted into a test."""
    return "[\n" + "".join(f"    {op!r},\n" for op in ops) + "]"
