"""What a forked child finds of its parent's buses: nothing that runs, and errors that say so."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["tell_after_fork"]


class _Forkable(Protocol):
    def forked(self) -> None:
        """In a child: the threads and the loop that this relied on are the parent's."""


_told: weakref.WeakSet[_Forkable] = weakref.WeakSet()


def tell_after_fork(one: _Forkable) -> None:
    """Call its ``forked()`` in every child, for as long as it lives."""
    _told.add(one)


def _after_fork() -> None:
    for one in list(_told):
        one.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
