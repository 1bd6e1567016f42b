"""What a fork may not tear apart, and what a forked child finds of its parent's buses: errors that say so."""

from __future__ import annotations

import os
import threading
import weakref
from types import TracebackType
from typing import Protocol

__all__ = ["NoFork", "tell_after_fork"]


class _Forkable(Protocol):
    def forked(self) -> None:
        """In a child: the threads and the loop that this relied on are the parent's."""


class NoFork:
    """``with`` it, on one thread at a time, nobody forks: for libraries whose locks would stay locked in the child."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _gates.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()


_told: weakref.WeakSet[_Forkable] = weakref.WeakSet()
_gates: weakref.WeakSet[NoFork] = weakref.WeakSet()
_shut: list[NoFork] = []


def tell_after_fork(one: _Forkable) -> None:
    """Call its ``forked()`` in every child, for as long as it lives."""
    _told.add(one)


def _before_fork() -> None:
    for gate in list(_gates):
        gate.__enter__()
        _shut.append(gate)


def _after_fork() -> None:
    while _shut:
        _shut.pop().__exit__(None, None, None)


def _after_fork_in_child() -> None:
    _after_fork()
    for one in list(_told):
        one.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
