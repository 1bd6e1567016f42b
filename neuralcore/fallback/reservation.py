"""A publish into several mailboxes that cannot enter all of them at once."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, get_running_loop
from collections import deque
from collections.abc import Sequence
from functools import partial
from threading import RLock, local
from typing import TYPE_CHECKING, Any

from neuralcore.fallback.slots import CLOSED, DESERTED, DROPPED, FULL, GRANTED, KINDS
from neuralcore.fallback.waiting import publishing_pump
from neuralcore.fallback.waker import resolve

if TYPE_CHECKING:
    from neuralcore.fallback.delays import Due
    from neuralcore.fallback.effects import After
    from neuralcore.fallback.mailbox import Mailbox
    from neuralcore.fallback.message import Message
    from neuralcore.fallback.pump import Pump
    from neuralcore.fallback.route import Route

__all__ = ["Reservation"]


class Reservation:
    """Takes its slots in ascending mailbox order, keeps those it has, and enters when it has all.

    Lock order: its own, then a mailbox's. So what a mailbox tells it under its lock is done afterwards.
    """

    __slots__ = (
        "_deserted",
        "_dropping",
        "_due",
        "_future",
        "_held",
        "_index",
        "_lock",
        "_loop",
        "_mailboxes",
        "_mandatory",
        "_message",
        "_over",
        "_publisher",
        "_route",
        "pump",
    )

    def __init__(
        self, route: Route, message: Message, mailboxes: Sequence[Mailbox], due: Due | None, *, mandatory: bool
    ) -> None:
        self._route = route
        self._message = message
        self._mailboxes = mailboxes
        self._due = due
        self._mandatory = mandatory
        self._index = 0
        self._held: list[Mailbox] = []
        self._dropping: list[Mailbox] = []
        self._deserted = False
        """One of the mailboxes is."""
        self._lock = RLock()
        self._over = False
        self._loop: AbstractEventLoop | None = None
        self._future: _Waiting | None = None
        self._publisher: Pump | None = None
        """The one in whose handler this was published."""
        self.pump: Pump | None = None

    def start(self, *, wait: bool) -> str | Future[str | None] | None:
        with self._lock:
            outcome = self._reserve()
            if outcome == FULL and wait:
                try:
                    self._loop = get_running_loop()
                except RuntimeError:
                    self._give_back()
                    raise
                self._future = _Waiting(self, self._loop)
                self._publisher = publishing_pump(self._loop)
                outcome = self._reserve()
            if outcome == FULL and self._future is not None:
                return self._future
            self._over = True
        if outcome == GRANTED:
            return self._enter()
        raise self._refuse(outcome)

    def cancel(self) -> None:
        """It has not happened, unless the message was handed over already."""
        with self._lock:
            if self._over:
                return
            self._over = True
        self._mailboxes[self._index]._unwait(self)
        self._give_back()

    def granted(self, mailbox: Mailbox, after: After, /) -> None:
        mailbox._slots.reserved += 1
        after.append(partial(_proceed, self, mailbox))

    def reconsider(self, mailbox: Mailbox, after: After, /) -> None:
        after.append(self._go_on)

    def closed(self, mailbox: Mailbox, after: After, /) -> None:
        after.append(self._go_on_without)

    def _has(self, mailbox: Mailbox) -> None:
        with self._lock:
            over = self._over
            if not over:
                self._held.append(mailbox)
                self._index += 1
        if over:
            mailbox._give_back()
        else:
            self._go_on()

    def _go_on(self) -> None:
        with self._lock:
            if self._over:
                return
            outcome = self._reserve()
            if outcome == FULL:
                return
            self._over = True
        if outcome == GRANTED:
            self._finish()
        else:
            self._resolve(self._refuse(outcome), error=True)

    def _go_on_without(self) -> None:
        """A mailbox takes nothing more; that ends the publish only where everything ends."""
        with self._lock:
            if self._over:
                return
            self._over = self._route._router._closed
        if self._over:
            self._resolve(self._refuse(CLOSED), error=True)
        else:
            self._go_on()

    def _reserve(self) -> int:
        while self._index < len(self._mailboxes):
            mailbox = self._mailboxes[self._index]
            publisher = self._publisher
            self.pump = publisher if publisher is not None and publisher._mailbox is mailbox else None
            outcome = mailbox._reserve(self if self._future is not None else None)
            if outcome == GRANTED:
                self._held.append(mailbox)
            elif outcome == DROPPED:
                self._dropping.append(mailbox)
            elif outcome == DESERTED:
                self._deserted = True
            elif outcome != CLOSED:
                return outcome
            self._index += 1
        return GRANTED

    def _give_back(self) -> None:
        for mailbox in self._held:
            mailbox._give_back()

    def _enter(self) -> str | None:
        message = self._message
        entered = False
        for mailbox in self._dropping:
            mailbox._count_drop()
        for mailbox in self._held:
            delivery = message if message._mailbox is None else message._copy(message._extras)
            if mailbox._enter(delivery, self._due):
                entered = True
            else:
                self._deserted = self._deserted or mailbox._slots.deserted
        if entered:
            return self._route._took(message)
        if self._deserted and not self._dropping:
            raise self._route._refused(KINDS[DESERTED], message)
        return self._route._left_out(message, dropped=bool(self._dropping), mandatory=self._mandatory)

    def _finish(self) -> None:
        try:
            value = self._enter()
        except BaseException as error:  # noqa: BLE001 - it belongs to the publisher, not to whoever made room
            self._resolve(error, error=True)
        else:
            self._resolve(value)

    def _refuse(self, outcome: int) -> BaseException:
        self._give_back()
        return self._route._refused(KINDS[outcome], self._message)

    def _resolve(self, value: object, *, error: bool = False) -> None:
        assert self._loop is not None
        assert self._future is not None
        # Where its loop has been closed, nobody waits for the answer any more.
        resolve(self._loop, self._future, value, error=error)


class _Waiting(Future["str | None"]):
    """The publisher's end: cancelling it takes the message back at once."""

    def __init__(self, reservation: Reservation, loop: AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._reservation = reservation

    def cancel(self, msg: Any | None = None) -> bool:
        cancelled = super().cancel(msg)
        if cancelled:
            self._reservation.cancel()
        return cancelled


class _Turns(local):
    def __init__(self) -> None:
        self.waiting: deque[tuple[Reservation, Mailbox]] = deque()
        self.running = False


_turns = _Turns()


def _proceed(reservation: Reservation, mailbox: Mailbox) -> None:
    """A slot has come free for it. Going on may free others, whose owners then go on, at any depth."""
    _turns.waiting.append((reservation, mailbox))
    if _turns.running:
        return
    _turns.running = True
    try:
        while _turns.waiting:
            following, granted = _turns.waiting.popleft()
            following._has(granted)
    finally:
        _turns.running = False
