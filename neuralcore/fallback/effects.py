"""What follows a change to a mailbox, once its lock is free."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuralcore.fallback.mailbox import Mailbox
    from neuralcore.fallback.message import Message
    from neuralcore.fallback.reservation import Reservation
    from neuralcore.fallback.waker import Waker

__all__ = ["Effects"]


class Effects:
    """Collected under the lock, run without it."""

    __slots__ = ("_mailbox", "closed", "due", "ended", "expired", "granted", "wakers")

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self.wakers: list[Waker] = []
        self.ended: list[Waker] = []
        self.granted: list[Reservation] = []
        self.closed: list[Reservation] = []
        self.expired: list[Message] = []
        self.due: int | None = None

    def run(self) -> None:
        for waker in self.wakers:
            if not waker.wake(True):
                self._mailbox._withdraw(waker)
        for waker in self.ended:
            if not waker.wake(False):
                self._mailbox._withdraw(waker)
        for reservation in self.granted:
            reservation.granted(self._mailbox)
        for reservation in self.closed:
            reservation.closed()
        if self.due is not None:
            self._mailbox.settler.due(self._mailbox, self.due)
        for message in self.expired:
            self._mailbox.settler.expired(message)
