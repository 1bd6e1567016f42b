"""How long a fetch waits for something to come."""

from __future__ import annotations

from neuralcore._core import Clock

__all__ = ["poll_seconds"]

_REAL = 30.0
_VIRTUAL = 86_400.0
"""Coming back sooner only makes virtual time pass slowly: what is due wakes a fetch by itself."""


def poll_seconds(clock: Clock) -> float:
    return _VIRTUAL if clock.manual else _REAL
