"""When a failed delivery is tried again, and how a handler steers it."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

__all__ = ["Reject", "Retry", "RetryPolicy"]


class Reject(Exception):
    """Raised by a handler: dead-letter this message now, do not try again."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class Retry(Exception):
    """Raised by a handler: a failed attempt, to be tried again ``after`` seconds (default: by the policy)."""

    def __init__(self, after: float | None = None) -> None:
        if after is not None and not (after >= 0 and math.isfinite(after)):
            raise ValueError(f"Retry(after=) must be a finite number of seconds, not negative; got {after!r}")
        super().__init__(after)
        self.after = after


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
