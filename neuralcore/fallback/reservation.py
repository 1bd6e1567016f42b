"""A publish that cannot enter at once."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, current_task, get_running_loop
from collections.abc import Sequence
from threading import RLock
from typing import TYPE_CHECKING

from neuralcore.fallback.effects import Effects
from neuralcore.fallback.mailbox import CLOSED, DEADLOCK, DROPPED, FULL, GRANTED, REJECTED
from neuralcore.fallback.waker import resolve

if TYPE_CHECKING:
    from neuralcore.fallback.delays import Due
    from neuralcore.fallback.mailbox import Mailbox
    from neuralcore.fallback.message import Message
    from neuralcore.fallback.pump import Pump
    from neuralcore.fallback.route import Route

__all__ = ["Reservation", "enter"]

_KINDS = {FULL: "full", REJECTED: "full", CLOSED: "closed", DEADLOCK: "deadlock"}


class Reservation:
    """Takes its slots in ascending mailbox order, keeps those it has, and enters when it has all."""

    __slots__ = (
        "_due",
        "_future",
        "_held",
        "_index",
        "_lock",
        "_loop",
        "_mailboxes",
        "_message",
        "_over",
        "_route",
        "pump",
    )

    def __init__(self, route: Route, message: Message, mailboxes: Sequence[Mailbox], due: Due | None) -> None:
        self._route = route
        self._message = message
        self._mailboxes = mailboxes
        self._due = due
        self._index = 0
        self._held: list[Mailbox] = []
        self._lock = RLock()
        self._over = False
        self._loop: AbstractEventLoop | None = None
        self._future: Future[str | None] | None = None
        self.pump: Pump | None = None
        """The one in whose handler this was published."""

    def start(self, *, wait: bool) -> str | None | Future[str | None]:
        with self._lock:
            outcome = self._reserve()
            if outcome == FULL and wait:
                self._prepare()
                outcome = self._reserve()
            if outcome == FULL and self._future is not None:
                return self._future
            self._over = True
        if outcome == GRANTED:
            return self._enter()
        raise self._refuse(outcome)

    def granted(self, mailbox: Mailbox) -> None:
        """A slot has come free; it is ours."""
        with self._lock:
            over = self._over
            if not over:
                self._held.append(mailbox)
                self._index += 1
        if over:
            mailbox._give_back()
        else:
            self.again()

    def again(self) -> None:
        with self._lock:
            if self._over:
                return
            outcome = self._reserve()
            if outcome == FULL:
                return
            self._over = True
            assert self._future is not None
            cancelled = self._future.cancelled()
        if cancelled:
            self._give_back()
        elif outcome == GRANTED:
            self._resolve(self._enter())
        else:
            self._resolve(self._refuse(outcome), error=True)

    def closed(self) -> None:
        with self._lock:
            if self._over:
                return
            self._over = True
        self._resolve(self._refuse(CLOSED), error=True)

    def _reserve(self) -> int:
        while self._index < len(self._mailboxes):
            mailbox = self._mailboxes[self._index]
            outcome = mailbox._reserve(self if self._future is not None else None)
            if outcome == GRANTED:
                self._held.append(mailbox)
            elif outcome != DROPPED:
                return outcome
            self._index += 1
        return GRANTED

    def _prepare(self) -> None:
        self._loop = get_running_loop()
        self._future = self._loop.create_future()
        self._future.add_done_callback(self._cancelled)
        task = current_task(self._loop)
        coroutine = None if task is None else task.get_coro()
        if getattr(coroutine, "_mailbox", None) is not None and getattr(coroutine, "current", None) is not None:
            self.pump = coroutine  # type: ignore[assignment]

    def _cancelled(self, future: Future[str | None]) -> None:
        with self._lock:
            if self._over or not future.cancelled():
                return
            self._over = True
            waits_at = self._mailboxes[self._index]
        waits_at._unwait(self)
        self._give_back()

    def _give_back(self) -> None:
        for mailbox in self._held:
            mailbox._give_back()

    def _enter(self) -> str | None:
        return enter(self._route, self._message, self._held, self._due)

    def _refuse(self, outcome: int) -> BaseException:
        self._give_back()
        return self._route._refused(_KINDS[outcome], self._message)

    def _resolve(self, value: object, *, error: bool = False) -> None:
        assert self._loop is not None and self._future is not None
        # Where its loop has been closed, nobody waits for the answer any more.
        resolve(self._loop, self._future, value, error=error)


def enter(route: Route, message: Message, mailboxes: Sequence[Mailbox], due: Due | None) -> str | None:
    """Into slots that are reserved. The id, or None when every mailbox dropped it."""
    entered = 0
    delivery = message
    after = []
    for mailbox in mailboxes:
        if delivery._mailbox is not None:
            delivery = message._copy(message._extras)
        effects = Effects(mailbox)
        after.append(effects)
        with mailbox._lock:
            entered += mailbox._enter(delivery, due, effects)
    result = route._count(message, entered)
    for effects in after:
        effects.run()
    return result
