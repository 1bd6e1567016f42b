"""What options may be: errors say what they are called, what was given and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from neuralcore.messaging.errors import InvalidChannelName
from neuralcore.messaging.names import validate_channel

__all__ = [
    "MAX_COUNT",
    "check_choice",
    "check_count",
    "check_dead_letter",
    "check_positive",
    "check_seconds",
    "check_text",
    "check_type",
]

MAX_COUNT = 2**31 - 1
"""What every core and every store can count to."""

_LONGEST_WAIT = 1e9
"""Seconds; some thirty years."""


def check_positive(name: str, value: object) -> None:
    """A positive, finite number."""
    number = _number(name, value)
    if not (number > 0 and math.isfinite(number)):
        raise ValueError(f"{name} must be positive and finite; got {value!r}")


def check_seconds(name: str, value: object) -> None:
    """How long to wait: a finite number, not negative."""
    if not 0 <= _number(name, value) <= _LONGEST_WAIT:
        raise ValueError(f"{name} must be from 0 to {_LONGEST_WAIT:g} seconds; got {value!r}")


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number; got {value!r}")
    return value


def check_count(name: str, value: object, *, least: int = 1, most: int | None = None) -> None:
    """An integer in these bounds."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer; got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}; got {value!r}")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most}; got {value!r}")


def check_type(name: str, value: object, *types: type) -> None:
    if not isinstance(value, types):
        wanted = " or ".join("None" if t is type(None) else t.__name__ for t in types)
        raise TypeError(f"{name} must be {wanted}; got {value!r}")


def check_text(name: str, value: object) -> None:
    """A str that is not empty."""
    check_type(name, value, str)
    if not value:
        raise ValueError(f"{name} must not be empty; got {value!r}")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


def check_dead_letter(name: str, value: object, channel: str) -> None:
    """Another channel than the one (or the pattern) whose dead letters it takes, False or None."""
    if value is None or value is False:
        return
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a channel's name, False or None; got {value!r}")
    try:
        validate_channel(value, internal=True)
    except InvalidChannelName as error:
        raise InvalidChannelName(value, f"{error.reason} (given as {name})") from None
    if value == channel:
        raise ValueError(f"{name} must be another channel than {channel!r} itself")
