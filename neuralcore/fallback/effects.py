"""What follows a change to a mailbox, once its lock is free."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuralcore.fallback.mailbox import Mailbox

__all__ = ["After", "Effects", "run"]

After = list[Callable[[], object]]
"""Steps to take when the lock is free: whatever calls into the application, a loop or another mailbox."""


class Effects:
    """Holds the lock in its body; what was collected there is done after it."""

    __slots__ = ("_after", "_mailbox")

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._after: After = []

    def __enter__(self) -> After:
        self._mailbox._lock.acquire()
        return self._after

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._mailbox._lock.release()
        if kind is None and self._after:
            run(self._after)


def run(after: After) -> None:
    """All of them, whatever one raises: the others wake somebody."""
    raised: BaseException | None = None
    for step in after:
        try:
            step()
        except BaseException as error:  # noqa: BLE001, PERF203 - raised below
            raised = raised or error
    if raised is not None:
        raise raised
