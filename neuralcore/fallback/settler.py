"""What the core calls."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from neuralcore.fallback.mailbox import Mailbox
    from neuralcore.fallback.message import Message

__all__ = ["Overflow", "Settler"]

Overflow = Literal["block", "drop_new", "drop_old", "reject"]


class Settler(Protocol):
    """What a mailbox's messages and timers call: the bus's side of settlement. Verbs answer an awaitable."""

    def ack(self, message: Message, /) -> Awaitable[None]: ...
    def nack(self, message: Message, delay: float | None, /) -> Awaitable[None]: ...
    def reject(self, message: Message, reason: str, /) -> Awaitable[None]: ...
    def release(self, message: Message, /) -> Awaitable[None]: ...
    def reply(self, message: Message, payload: Any, /) -> Awaitable[None]: ...
    def transaction(self, message: Message, connection: Any | None, /) -> AbstractAsyncContextManager[Any]: ...
    def due(self, mailbox: Mailbox, monotonic_ns: int, /) -> None:
        """The mailbox wants ``promote()`` called at this time. Any thread; only when the earliest time changes."""

    def expired(self, message: Message, /) -> None:
        """Its expiry passed before a handler got it; the mailbox has given its slot back."""
