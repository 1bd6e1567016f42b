"""A publish that takes its slots one after the other."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, current_task, get_running_loop
from collections import deque
from collections.abc import Sequence
from threading import RLock, local
from typing import TYPE_CHECKING, Any

from neuralcore.fallback.slots import CLOSED, DEADLOCK, DROPPED, FULL, GRANTED, REJECTED
from neuralcore.fallback.waker import resolve

if TYPE_CHECKING:
    from neuralcore.fallback.delays import Due
    from neuralcore.fallback.mailbox import Mailbox
    from neuralcore.fallback.message import Message
    from neuralcore.fallback.pump import Pump
    from neuralcore.fallback.route import Route

__all__ = ["Reservation"]

_KINDS = {FULL: "full", REJECTED: "full", CLOSED: "closed", DEADLOCK: "deadlock"}


class Reservation:
    """Takes its slots in ascending mailbox order, keeps those it has, and enters when it has all."""

    __slots__ = (
        "_dropped",
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
        self._dropped = False
        self._lock = RLock()
        self._over = False
        self._loop: AbstractEventLoop | None = None
        self._future: _Waiting | None = None
        self.pump: Pump | None = None
        """The one in whose handler this was published."""

    def start(self, *, wait: bool) -> str | Future[str | None] | None:
        with self._lock:
            outcome = self._reserve()
            if outcome == FULL and wait:
                try:
                    self._prepare()
                except RuntimeError:
                    self._give_back()
                    raise
                outcome = self._reserve()
            if outcome == FULL and self._future is not None:
                return self._future
            self._over = True
        if outcome == GRANTED:
            return self._enter()
        raise self._refuse(outcome)

    def granted(self, mailbox: Mailbox) -> None:
        """A slot has come free; it is ours. Going on may free others, whose owners then go on, at any depth."""
        _turns.granted.append((self, mailbox))
        if _turns.running:
            return
        _turns.running = True
        try:
            while _turns.granted:
                reservation, granted = _turns.granted.popleft()
                reservation._go_on(granted)
        finally:
            _turns.running = False

    def again(self) -> None:
        """Nobody waits here any more: what does the policy say now?"""
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

    def closed(self) -> None:
        """The mailbox it waited for was closed: it goes on without that one, unless the whole router is closed."""
        with self._lock:
            if self._over:
                return
            self._over = self._route._router._closed
        if self._over:
            self._resolve(self._refuse(CLOSED), error=True)
        else:
            self.again()

    def _go_on(self, mailbox: Mailbox) -> None:
        with self._lock:
            over = self._over
            if not over:
                self._held.append(mailbox)
                self._index += 1
        if over:
            mailbox._give_back()
        else:
            self.again()

    def _reserve(self) -> int:
        while self._index < len(self._mailboxes):
            mailbox = self._mailboxes[self._index]
            outcome = mailbox._reserve(self if self._future is not None else None)
            if outcome == GRANTED:
                self._held.append(mailbox)
            elif outcome == DROPPED:
                self._dropped = True
            elif outcome != CLOSED:
                return outcome
            self._index += 1
        return GRANTED

    def _prepare(self) -> None:
        self._loop = get_running_loop()
        self._future = _Waiting(self, self._loop)
        task = current_task(self._loop)
        coroutine = None if task is None else task.get_coro()
        if getattr(coroutine, "_mailbox", None) is not None and getattr(coroutine, "current", None) is not None:
            self.pump = coroutine  # type: ignore[assignment]

    def cancel(self) -> None:
        """It has not happened, unless the message was handed over already."""
        with self._lock:
            if self._over:
                return
            self._over = True
        self._mailboxes[self._index]._unwait(self)
        self._give_back()

    def _give_back(self) -> None:
        for mailbox in self._held:
            mailbox._give_back()

    def _enter(self) -> str | None:
        message = self._message
        entered = False
        for mailbox in self._held:
            delivery = message if message._mailbox is None else message._copy(message._extras)
            entered = mailbox._enter(delivery, self._due) or entered
        if entered:
            return self._route._took(message)
        return self._route._left_out(message, dropped=self._dropped, mandatory=self._mandatory)

    def _finish(self) -> None:
        try:
            value = self._enter()
        except BaseException as error:  # noqa: BLE001 - it belongs to the publisher, not to whoever made room
            self._resolve(error, error=True)
        else:
            self._resolve(value)

    def _refuse(self, outcome: int) -> BaseException:
        self._give_back()
        return self._route._refused(_KINDS[outcome], self._message)

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
        self.granted: deque[tuple[Reservation, Mailbox]] = deque()
        self.running = False


_turns = _Turns()
