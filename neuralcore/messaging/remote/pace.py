"""How fast an intake's messages are handled: the measure of how many to hold."""

from __future__ import annotations

from neuralcore._core import Clock

__all__ = ["Pace"]

_SECOND = 1_000_000_000


class Pace:
    """Counts messages against the time in which there were any; the clock is read only when that begins or ends.

    The past fades: beyond a second of work, what was measured before counts half.
    """

    __slots__ = ("_busy_ns", "_clock", "_finished", "_since")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._busy_ns = 0
        self._finished = 0
        self._since: int | None = None

    def busy(self) -> None:
        """There is work from here on."""
        self._since = self._clock.monotonic_ns()

    def idle(self) -> None:
        self._account()
        self._since = None

    def finished(self) -> None:
        """One message more was handled."""
        self._finished += 1

    def window(self, least: int, most: int) -> int:
        """The messages of about one second; ``least`` before anything is known."""
        self._account()
        if not self._finished:
            return least
        a_second = self._finished * _SECOND // self._busy_ns if self._busy_ns else most
        return max(least, min(most, a_second))

    def _account(self) -> None:
        if self._since is not None:
            now = self._clock.monotonic_ns()
            self._busy_ns += now - self._since
            self._since = now
        while self._busy_ns > _SECOND and self._finished > 1:
            self._busy_ns //= 2
            self._finished //= 2
