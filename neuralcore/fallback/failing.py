"""What follows an exception out of a handler."""

from __future__ import annotations

from asyncio import CancelledError, Task, get_running_loop
from typing import TYPE_CHECKING, Any

from neuralcore.fallback.message import IN_FLIGHT, SETTLED

if TYPE_CHECKING:
    from neuralcore.fallback.message import Message
    from neuralcore.fallback.pump import Pump

__all__ = ["cancellations", "disarm", "fail"]


async def fail(pump: Pump, messages: Message | list[Message], error: BaseException) -> bool:
    """Let ``failed`` decide. False when the pump ends with the error."""
    ours = isinstance(error, CancelledError) and pump._thrown
    timed_out = pump._timed_out
    cancelled_too = disarm(pump)
    if pump._closing or isinstance(error, (KeyboardInterrupt, SystemExit)) or (ours and pump._releasing):
        _give_back(pump, messages)
        return False
    if ours and timed_out:
        ours = cancelled_too
        error = _timeout(pump, error)
    unsettled = _unsettled(messages)
    if not unsettled:
        _report(pump, error)
        if isinstance(messages, list) or messages.reply_to is None:
            return not ours
        unsettled = messages
    try:
        decision = pump._failed(unsettled, error)
        if decision is not None:
            await decision
    except BaseException:
        _give_back(pump, unsettled)
        raise
    return not ours


def disarm(pump: Pump) -> bool:
    """The handler is over. Whether the task was cancelled besides the timeout."""
    cancelled = pump._thrown
    pump._thrown = False
    if pump._timer is not None:
        pump._timer.cancel()
        pump._timer = None
        if pump._timed_out:
            pump._timed_out = False
            cancelled = _uncancel(pump._task) > pump._cancelling
        pump._task = None
    return cancelled


def cancellations(task: Task[Any] | None) -> int:
    """Python 3.10 does not count them."""
    cancelling = getattr(task, "cancelling", None)
    return 0 if cancelling is None else int(cancelling())


def _uncancel(task: Task[Any] | None) -> int:
    uncancel = getattr(task, "uncancel", None)
    return 0 if uncancel is None else int(uncancel())


def _timeout(pump: Pump, cancellation: BaseException) -> TimeoutError:
    error = TimeoutError(f"the handler took longer than {pump._timeout} s")
    error.__cause__ = cancellation
    return error


def _unsettled(messages: Message | list[Message]) -> Message | list[Message] | None:
    if isinstance(messages, list):
        return [message for message in messages if not message._state & SETTLED]
    return None if messages._state & SETTLED else messages


def _give_back(pump: Pump, messages: Message | list[Message]) -> None:
    for message in reversed(messages) if isinstance(messages, list) else [messages]:
        if message._state & (IN_FLIGHT | SETTLED) == IN_FLIGHT and message._mailbox is pump._mailbox:
            pump._mailbox.release(message)


def _report(pump: Pump, error: BaseException) -> None:
    """Nobody decides on a message that its handler has settled, but the error is not lost."""
    if not isinstance(error, CancelledError):
        get_running_loop().call_exception_handler(
            {"message": f"{pump.__name__}: the handler failed after it had settled its message", "exception": error}
        )
