"""What options of a publish and parts of a message may be, wherever Python decides; the native core says the same."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from operator import index
from typing import Final

__all__ = ["MAX_NS", "check_headers", "check_integers", "check_required", "check_texts", "nanoseconds"]

MAX_NS: Final = 2**63 - 1
"""The end of time: what is beyond it is this."""


def check_required(**given: object) -> None:
    """Raises TypeError."""
    for name, value in given.items():
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a str")


def check_texts(**given: object) -> None:
    """Raises TypeError."""
    for name, value in given.items():
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{name} must be a str or None")


def check_integers(**given: object) -> None:
    """Raises TypeError, OverflowError."""
    for name, value in given.items():
        if value is not None and not -MAX_NS - 1 <= index(value) <= MAX_NS:  # type: ignore[arg-type]
            raise OverflowError(f"{name} does not fit into 64 bits")


def check_headers(given: object) -> None:
    """Raises TypeError."""
    if given is not None and not (
        isinstance(given, Mapping) and all(isinstance(n, str) and isinstance(v, str) for n, v in given.items())
    ):
        raise TypeError("headers must map str to str")


def nanoseconds(name: str, seconds: float) -> int:
    """Raises TypeError, ValueError."""
    if not isfinite(seconds):
        raise ValueError(f"{name} is a finite number of seconds, not {seconds}")
    return max(-MAX_NS, min(round(seconds * 1e9), MAX_NS))
