"""When a failed delivery is tried again, and how a handler steers it."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

__all__ = ["MAX_DELAY", "Reject", "Retry", "RetryPolicy", "check_delay"]

MAX_DELAY = 10 * 365 * 86_400.0
"""Ten years, in seconds: the longest that a message may wait for its next attempt."""


def check_delay(seconds: object, what: str) -> float:
    """Raises TypeError or ValueError: a number, not negative, at most MAX_DELAY."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{what} must be a number of seconds; got {seconds!r}")
    if not 0 <= seconds <= MAX_DELAY:
        raise ValueError(f"{what} must be a number of seconds from 0 to {MAX_DELAY:.0f} (ten years); got {seconds!r}")
    return float(seconds)


class Reject(Exception):
    """Raised by a handler: dead-letter this message now, do not try again."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class Retry(Exception):
    """Raised by a handler: a failed attempt, to be tried again ``after`` seconds (default: by the policy).

    From 0 to ten years; TypeError and ValueError say what else was given.
    """

    def __init__(self, after: float | None = None) -> None:
        self.after = None if after is None else check_delay(after, "Retry(after=)")
        super().__init__(self.after)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential back-off with full jitter: a random wait below ``min(cap, base * factor ** (attempt - 1))`` seconds.

    >>> RetryPolicy(base=0.1, factor=2.0, cap=30.0, jitter=False).delay(3)
    0.4
    """

    max_attempts: int = 5
    """Handler calls in all; after the last one fails, the message is dead-lettered. 1 never retries."""
    base: float = 0.1
    factor: float = 2.0
    cap: float = 30.0
    jitter: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.max_attempts, bool) or not isinstance(self.max_attempts, int):
            raise TypeError(f"RetryPolicy.max_attempts must be an integer; got {self.max_attempts!r}")
        if self.max_attempts < 1:
            raise ValueError(f"RetryPolicy.max_attempts must be at least 1; got {self.max_attempts!r}")
        for name, least in (("base", 0.0), ("factor", 1.0), ("cap", 0.0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"RetryPolicy.{name} must be a number; got {value!r}")
            if not (value >= least and math.isfinite(value)):
                raise ValueError(f"RetryPolicy.{name} must be finite and at least {least:g}; got {value!r}")
        check_delay(self.cap, "RetryPolicy.cap")
        if not isinstance(self.jitter, bool):
            raise TypeError(f"RetryPolicy.jitter must be a bool; got {self.jitter!r}")

    def exhausted(self, attempt: int) -> bool:
        """Whether the message is dead-lettered when this attempt (counted from 1) has failed."""
        return attempt >= self.max_attempts

    def ceiling(self, attempt: int) -> float:
        """The longest wait after this failed attempt, in seconds."""
        try:
            return min(self.cap, self.base * float(self.factor) ** (attempt - 1))
        except OverflowError:
            return self.cap if self.base else 0.0

    def delay(self, attempt: int, rng: random.Random | None = None) -> float:
        """The wait after this failed attempt, in seconds; ``rng`` makes it repeatable."""
        ceiling = self.ceiling(attempt)
        if not self.jitter:
            return ceiling
        return (rng.random() if rng else random.random()) * ceiling
