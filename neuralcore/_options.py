"""What options of a publish and parts of a message may be, wherever Python decides; the native core says the same."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from operator import index
from typing import Final

__all__ = [
    "MAX_NS",
    "check_headers",
    "check_integers",
    "check_message_id",
    "check_required",
    "check_texts",
    "integer",
    "nanoseconds",
]

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
        if value is not None and not -MAX_NS - 1 <= integer(name, value) <= MAX_NS:
            raise OverflowError(f"{name} does not fit into 64 bits")


def check_message_id(given: object) -> None:
    """Raises TypeError, ValueError."""
    check_texts(message_id=given)
    if given == "":
        raise ValueError("message_id must not be empty")


def integer(name: str, value: object) -> int:
    """Raises TypeError."""
    try:
        return index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None


def check_headers(given: object) -> None:
    """Raises TypeError."""
    if given is not None and not (
        isinstance(given, Mapping) and all(isinstance(n, str) and isinstance(v, str) for n, v in given.items())
    ):
        raise TypeError("headers must map str to str")


def nanoseconds(name: str, seconds: float) -> int:
    """Raises TypeError, ValueError."""
    try:
        finite = isfinite(seconds)
    except TypeError:
        raise TypeError(f"{name} must be a number of seconds, not {seconds!r}") from None
    if not finite:
        raise ValueError(f"{name} is a finite number of seconds, not {seconds}")
    return max(-MAX_NS, min(round(seconds * 1e9), MAX_NS))
