"""What follows a change to a mailbox, once its lock is free."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuralcore.fallback.mailbox import Mailbox
    from neuralcore.fallback.message import Message
    from neuralcore.fallback.reservation import Reservation
    from neuralcore.fallback.waker import Waker

__all__ = ["Effects"]


class Effects:
    """Holds the lock in its body; what was collected there is done after it, without the lock."""

    __slots__ = ("_mailbox", "_steps")

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._steps: list[Callable[[], None]] = []

    def __enter__(self) -> Effects:
        self._mailbox._lock.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._mailbox._lock.release()
        if kind is None:
            for step in self._steps:
                step()

    def wake(self, wakers: Iterable[Waker], work: bool = True) -> None:
        for waker in wakers:
            self._steps.append(partial(self._mailbox._wake, waker, work))

    def grant(self, reservations: Iterable[Reservation]) -> None:
        for reservation in reservations:
            self._steps.append(partial(reservation.granted, self._mailbox))

    def try_again(self, reservations: Iterable[Reservation]) -> None:
        self._steps += [reservation.again for reservation in reservations]

    def refuse(self, reservations: Iterable[Reservation]) -> None:
        self._steps += [reservation.closed for reservation in reservations]

    def announce(self, due_ns: int | None) -> None:
        if due_ns is not None:
            self._steps.append(partial(self._mailbox.settler.due, self._mailbox, due_ns))

    def expire(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self._steps.append(partial(self._mailbox.settler.expired, message))
