"""A rate limit."""

import math
from threading import RLock
from typing import final

from neuralcore.fallback.clock import Clock

__all__ = ["TokenBucket"]


@final
class TokenBucket:
    """A rate limit: ``rate`` tokens a second, at most ``burst`` at once."""

    __slots__ = ("_at", "_burst", "_clock", "_lock", "_rate", "_tokens")

    def __init__(self, clock: Clock, rate: float, burst: float) -> None:
        """Raises ValueError unless both are positive and finite."""
        for name, value in (("rate", rate), ("burst", burst)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"a token bucket's {name} is positive and finite, not {value}")
        self._clock = clock
        self._rate = float(rate)
        self._burst = float(burst)
        self._tokens = self._burst
        self._at = clock.monotonic_ns()
        self._lock = RLock()

    def take(self, tokens: float = 1.0) -> float:
        """Take them and answer 0.0, or take nothing and answer the seconds until they would be there."""
        with self._lock:
            now = self._clock.monotonic_ns()
            self._tokens = min(self._burst, self._tokens + (now - self._at) * 1e-9 * self._rate)
            self._at = now
            missing = tokens - self._tokens
            if missing <= 0:
                self._tokens -= tokens
                return 0.0
            return missing / self._rate
