"""The one source of time."""

import time
from collections.abc import Callable
from typing import final

__all__ = ["Clock"]


@final
class Clock:
    """The one source of time: the system's clocks, or a manual clock that a test advances."""

    __slots__ = ("_manual", "_monotonic", "_monotonic_ns", "_time_ns", "_wall")

    def __init__(self, *, manual: bool = False, time_ns: int = 0, monotonic_ns: int = 0) -> None:
        self._manual = manual
        self._time_ns = time_ns
        self._monotonic_ns = monotonic_ns
        self._wall: Callable[[], int] = self._manual_wall if manual else time.time_ns
        self._monotonic: Callable[[], int] = self._manual_monotonic if manual else time.monotonic_ns

    @property
    def manual(self) -> bool:
        return self._manual

    def time_ns(self) -> int:
        """Wall clock."""
        return self._wall()

    def monotonic_ns(self) -> int:
        """A clock that never jumps."""
        return self._monotonic()

    def advance(self, ns: int) -> None:
        """Move both clocks of a manual clock forward. Raises ValueError on a system clock or a negative step."""
        self._require_manual("advance")
        if ns < 0:
            raise ValueError(f"a clock advances by 0 ns or more, not by {ns}; jump() moves the wall clock back")
        self._time_ns += ns
        self._monotonic_ns += ns

    def jump(self, ns: int) -> None:
        """Move only the wall clock of a manual clock, either way. Raises ValueError on a system clock."""
        self._require_manual("jump")
        self._time_ns += ns

    def __repr__(self) -> str:
        if self._manual:
            return f"Clock(manual=True, time_ns={self._time_ns}, monotonic_ns={self._monotonic_ns})"
        return "Clock()"

    def _manual_wall(self) -> int:
        return self._time_ns

    def _manual_monotonic(self) -> int:
        return self._monotonic_ns

    def _require_manual(self, verb: str) -> None:
        if not self._manual:
            raise ValueError(f"a system clock cannot {verb}; make one with Clock(manual=True)")
