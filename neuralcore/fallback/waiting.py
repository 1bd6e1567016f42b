"""A publish that waits for room in the one mailbox of its channel."""

from __future__ import annotations

from asyncio import Future, _get_running_loop, current_task, get_running_loop
from functools import partial
from typing import TYPE_CHECKING, Any

from neuralcore.fallback.slots import CLOSED, DEADLOCK, DROPPED, GRANTED, KINDS
from neuralcore.fallback.waker import resolve

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from neuralcore.fallback.delays import Due
    from neuralcore.fallback.effects import After
    from neuralcore.fallback.mailbox import Mailbox
    from neuralcore.fallback.message import Message
    from neuralcore.fallback.pump import Pump
    from neuralcore.fallback.route import Route

__all__ = ["Waiting", "publishing_pump", "wait_for_room"]


class Waiting(Future["str | None"]):
    """What its publisher awaits. Whether it waits still is decided under the mailbox's lock."""

    __slots__ = ("due", "loop", "mailbox", "mandatory", "message", "pump", "route")

    loop: AbstractEventLoop
    route: Route
    message: Message
    mailbox: Mailbox
    due: Due | None
    mandatory: bool
    pump: Pump | None

    def granted(self, mailbox: Mailbox, after: After, /) -> None:
        mailbox._put(self.message, self.due, after)
        self.route._published += 1
        after.append(self._finish)

    def reconsider(self, mailbox: Mailbox, after: After, /) -> None:
        outcome = mailbox._take_slot(after)
        if outcome == GRANTED:
            self.granted(mailbox, after)
        else:
            self.ended(outcome, after)

    def closed(self, mailbox: Mailbox, after: After, /) -> None:
        self.ended(CLOSED, after)

    def ended(self, outcome: int, after: After, /) -> None:
        """Without having entered."""
        after.append(partial(self._end, outcome))

    def cancel(self, msg: Any | None = None) -> bool:
        """Before the message was handed over it has not happened."""
        cancelled = super().cancel(msg)
        if cancelled:
            self.mailbox._unwait(self)
        return cancelled

    def _finish(self) -> None:
        if _get_running_loop() is self.loop:
            if not self.done():
                self.set_result(self.message._id)
        else:
            # Where its loop has been closed, nobody waits for the answer any more.
            resolve(self.loop, self, self.message._id)

    def _end(self, outcome: int) -> None:
        route = self.route
        try:
            if outcome == DROPPED or (outcome == CLOSED and not route._router._closed):
                value = route._left_out(self.message, dropped=outcome == DROPPED, mandatory=self.mandatory)
                resolve(self.loop, self, value)
            else:
                raise route._refused(KINDS[outcome], self.message)
        except BaseException as error:  # noqa: BLE001 - it belongs to the publisher, not to whoever brought this about
            resolve(self.loop, self, error, error=True)


def wait_for_room(route: Route, message: Message, mailbox: Mailbox, due: Due | None, *, mandatory: bool) -> Waiting:
    """A place among those that wait, unless there is room by now. Raises what ``error("deadlock", …)`` builds."""
    loop = get_running_loop()
    waiting = Waiting(loop=loop)
    waiting.loop = loop
    waiting.route = route
    waiting.message = message
    waiting.mailbox = mailbox
    waiting.due = due
    waiting.mandatory = mandatory
    pump = publishing_pump(loop)
    waiting.pump = pump if pump is not None and pump._mailbox is mailbox else None
    if not mailbox._wait_for_room(waiting):
        raise route._refused(KINDS[DEADLOCK], message)
    return waiting


def publishing_pump(loop: AbstractEventLoop) -> Pump | None:
    """The worker in whose handler we are, if so."""
    task = current_task(loop)
    coroutine: Any = None if task is None else task.get_coro()
    if getattr(coroutine, "_mailbox", None) is not None and coroutine.current is not None:
        return coroutine  # type: ignore[no-any-return]
    return None
