"""Many rows by few statements: each statement gives the interpreter's lock up, and takes it back when others let go.

A statement is made for so many rows; one of each of the ``_SIZES`` stays prepared in the connection's cache. Not by way
of JSON, which cannot carry every text and every body byte by byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Final, TypeVar

__all__ = ["insert", "marks", "parts"]

_SIZES: Final = (64, 32, 16, 8, 4, 2, 1)

Execute = Callable[[str, Sequence[Any]], Any]
T = TypeVar("T")


def insert(execute: Execute, head: str, rows: Sequence[Sequence[Any]], tail: str = "", *more: Any) -> int:
    """``head`` VALUES … ``tail``, whose parameters are ``more``; how many rows it has changed."""
    changed = 0
    for part in parts(rows):
        statement = _insert(head, len(part), len(part[0]), tail)
        changed += execute(statement, (*chain.from_iterable(part), *more)).rowcount
    return changed


def parts(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """In lengths of which there are few."""
    done, left = 0, len(rows)
    for size in _SIZES:
        while left >= size:
            yield rows[done : done + size]
            done, left = done + size, left - size


@lru_cache(maxsize=256)
def _insert(head: str, rows: int, columns: int, tail: str) -> str:
    return f"{head} VALUES {', '.join([marks(columns)] * rows)}{tail}"


@lru_cache(maxsize=64)
def marks(count: int) -> str:
    """``(?, ?, …)``"""
    return f"({', '.join('?' * count)})"
