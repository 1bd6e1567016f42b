"""A worker's coroutine."""

from __future__ import annotations

from asyncio import CancelledError, Task, TimerHandle, current_task, get_running_loop
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from types import CodeType, CoroutineType, FrameType, TracebackType
from typing import TYPE_CHECKING, Any, final

from neuralcore._options import check_integers, check_texts, nanoseconds
from neuralcore.fallback.failing import cancellations
from neuralcore.fallback.handling import handle_batches, handle_messages
from neuralcore.fallback.steps import FRESH_CONTEXT, Steps

if TYPE_CHECKING:
    from neuralcore.fallback.mailbox import Mailbox
    from neuralcore.fallback.message import Message
    from neuralcore.fallback.waker import Waker

__all__ = ["Pump"]


@final
class Pump:
    """A worker's coroutine: takes from the mailbox, calls the handler, drives what it returns, settles, goes on.

    Run it as ``loop.create_task(pump)``. It ends when the mailbox is closed and empty, after ``stop()``, or when its
    task is cancelled (see ``throw``).
    """

    __slots__ = (
        "__name__",
        "__qualname__",
        "__weakref__",
        "_attention",
        "_away",
        "_base",
        "_batch",
        "_began",
        "_budget",
        "_cancelling",
        "_closing",
        "_context",
        "_coroutine",
        "_current",
        "_failed",
        "_handler",
        "_mailbox",
        "_measured",
        "_releasing",
        "_replied",
        "_settled",
        "_slice_ns",
        "_stopping",
        "_task",
        "_thrown",
        "_timed_out",
        "_timeout",
        "_timer",
        "_waker",
    )

    def __init__(
        self,
        mailbox: Mailbox,
        handler: Callable[[Any], Any],
        *,
        failed: Callable[[Any, BaseException], Awaitable[None] | None],
        replied: Callable[[Message, Any], Awaitable[None] | None],
        settled: Callable[[Message, Any], None] | None = None,
        batch: int = 0,
        timeout: float | None = None,
        context: Context | None = None,
        budget: int = 256,
        slice_ns: int = 1_000_000,
        name: str = "pump",
    ) -> None:
        """``handler`` gets a Message, or with ``batch=n`` a list of 1 to n; it may return an awaitable, then driven.

        Each call runs in a copy of ``context`` (default: the context at construction). After success the message is
        acked on the mailbox; before that ``replied`` is called when it has a reply_to (single messages only), and
        ``settled``, when given, instead of nothing (a transport queues its acknowledgement there). After an exception
        ``failed`` decides and settles on the mailbox (retry, release or ack), gets the Message or the list, and may
        return an awaitable, which is driven before the next message. Messages settled inside the handler are left out,
        except a single request: its requester may have to be told.
        """
        if budget < 1:
            raise ValueError(f"a pump's budget is 1 or more, not {budget}")
        check_integers(batch=batch, slice_ns=slice_ns)
        check_texts(name=name)
        if timeout is not None:
            nanoseconds("timeout", timeout)
        self._mailbox = mailbox
        self._handler = handler
        self._failed = failed
        self._replied = replied
        self._settled = settled
        self._batch = batch
        self._timeout = timeout
        self._base = copy_context() if context is None else context.copy()
        self._context = self._base.copy()
        self._budget = budget
        self._slice_ns = slice_ns
        self.__name__ = self.__qualname__ = name
        self._coroutine: Coroutine[Any, Any, None] | None = None
        self._current: Message | list[Message] | None = None
        self._away = False
        """Suspended inside the handler, or what decides after it."""
        self._attention = False
        """Something is to be seen to after this message: the one flag that is looked at after each."""
        self._measured = 0
        """When the current handler began, if it was woken for and is measured."""
        self._waker: Waker | None = None
        self._stopping = False
        self._closing = False
        self._releasing = False
        """The next cancellation gives the message back."""
        self._thrown = False
        """A cancellation of the task has reached the handler."""
        self._began = 0.0
        self._task: Task[Any] | None = None
        self._timer: TimerHandle | None = None
        self._timed_out = False
        self._cancelling = 0
        """Cancellations of the task before the timeout's own."""
        mailbox._join(self)

    def stop(self, *, cancel: bool = False) -> None:
        """End after the current message; with ``cancel`` the task's next CancelledError releases it instead."""
        self._releasing = self._releasing or cancel
        self._stopping = True
        self._attention = True
        waker = self._waker
        if waker is not None:
            self._mailbox._summon(waker)

    @property
    def current(self) -> Message | list[Message] | None:
        return self._current

    @property
    def timed_out(self) -> bool:
        """The CancelledError now travelling through the handler comes from ``timeout``."""
        return self._timed_out

    def send(self, value: Any, /) -> Any:
        return self._step((self._coroutine or self._started()).send, value)

    def throw(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
        /,
    ) -> Any:
        """Raise it where the pump waits.

        CancelledError while a handler runs, out of that handler: by ``timeout``, ``failed(message, TimeoutError)`` and
        the pump goes on; after ``stop(cancel=True)``, the message is released and the pump ends cancelled; otherwise
        ``failed(message, CancelledError)`` and the pump ends cancelled (its owner starts another). KeyboardInterrupt
        and SystemExit release the message and propagate.
        """
        error = _exception(typ, val, tb)
        if self._away and isinstance(error, CancelledError):
            self._thrown = True
            self._attention = True
        return self._step(self._started().throw, error)

    def close(self) -> None:
        coroutine = self._started()
        self._closing = True
        if self._away:
            self._resume()
        self._context.run(coroutine.close)
        self._mailbox._leave(self, active=False)

    def __await__(self) -> Generator[Any, Any, None]:
        yield from Steps(self)

    @property
    def cr_await(self) -> object:
        return None if self._coroutine is None else self._inspected().cr_await

    @property
    def cr_code(self) -> CodeType | None:
        return self._entry().__code__

    @property
    def cr_frame(self) -> FrameType | None:
        """The handler's frame while it is suspended: that is what a stack is read for."""
        if self._coroutine is None:
            return None
        outer: object = self._inspected()
        frame = self._inspected().cr_frame
        while isinstance(outer, CoroutineType) and outer.cr_code.co_filename == handle_messages.__code__.co_filename:
            frame = outer.cr_frame
            outer = outer.cr_await
        inner = getattr(outer, "cr_frame", None) or getattr(outer, "gi_frame", None)
        return inner if self._away and isinstance(inner, FrameType) else frame

    @property
    def cr_running(self) -> bool:
        return self._coroutine is not None and self._inspected().cr_running

    def __repr__(self) -> str:
        return f"<Pump {self.__name__}>"

    def _entry(self) -> Callable[[Pump], Coroutine[Any, Any, None]]:
        return handle_batches if self._batch else handle_messages

    def _started(self) -> Coroutine[Any, Any, None]:
        """Made when it is needed: a pump that never runs is no coroutine that was never awaited."""
        if self._coroutine is None:
            self._coroutine = self._entry()(self)
        return self._coroutine

    def _inspected(self) -> CoroutineType[Any, Any, None]:
        assert isinstance(self._coroutine, CoroutineType)
        return self._coroutine

    def _step(self, step: Callable[[Any], Any], argument: Any) -> Any:
        if self._away:
            self._resume()
        while True:
            yielded = self._context.run(step, argument)
            if yielded is not FRESH_CONTEXT:
                break
            assert self._coroutine is not None
            self._context = self._base.copy()
            step = self._coroutine.send
            argument = None
        if self._current is not None:
            self._suspend()
        return yielded

    def _suspend(self) -> None:
        if self._timeout is not None and self._timer is None:
            loop = get_running_loop()
            self._task = current_task(loop)
            self._cancelling = cancellations(self._task)
            self._attention = True
            self._timer = loop.call_at(self._began + self._timeout, self._expire)
        self._away = True
        self._mailbox._goes_away()

    def _resume(self) -> None:
        self._away = False
        self._mailbox._goes_on()

    def _expire(self) -> None:
        self._timed_out = True
        if self._task is not None:
            self._task.cancel()

    def _ends(self) -> bool:
        return self._stopping

    def _held(self) -> int:
        """How many slots its current messages have."""
        current = self._current
        return len(current) if isinstance(current, list) else int(current is not None)


def _exception(typ: type[BaseException] | BaseException, val: object, tb: TracebackType | None) -> BaseException:
    if isinstance(typ, BaseException):
        error = typ
    elif isinstance(val, BaseException):
        error = val
    else:
        error = typ() if val is None else typ(val)
    return error if tb is None else error.with_traceback(tb)
