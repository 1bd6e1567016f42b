"""A worker's coroutine."""

from __future__ import annotations

from asyncio import CancelledError, Task, TimerHandle, current_task, get_running_loop
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from inspect import isawaitable
from operator import is_
from types import CodeType, CoroutineType, FrameType, TracebackType
from typing import TYPE_CHECKING, Any, final

from neuralcore.fallback.message import IN_FLIGHT, SETTLED, Message
from neuralcore.fallback.steps import FRESH_CONTEXT, YIELD, Steps
from neuralcore.fallback.waker import Waker

if TYPE_CHECKING:
    from neuralcore.fallback.mailbox import Mailbox

__all__ = ["Pump"]

_STRIDE = 8
"""While handlers are fast, the clock is read once for so many of them."""


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
        "_away",
        "_base",
        "_base_values",
        "_batch",
        "_began",
        "_budget",
        "_cancelling",
        "_context",
        "_coroutine",
        "_current",
        "_failed",
        "_handler",
        "_mailbox",
        "_release",
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
        """``handler`` gets a Message, or with ``batch=n`` a list of 1 to n; it may return an awaitable, which is driven.

        Each call runs in a copy of ``context`` (default: the context at construction). After success the message is
        acked on the mailbox; before that ``replied`` is called when it has a reply_to (single messages only), and
        ``settled``, when given, instead of nothing (a transport queues its acknowledgement there). After an exception
        ``failed`` decides and settles on the mailbox (retry, release or ack), gets the Message or the list, and may return
        an awaitable, which is driven before the next message. Messages settled inside the handler are left out.
        """
        if budget < 1:
            raise ValueError(f"a pump's budget is 1 or more, not {budget}")
        self._mailbox = mailbox
        self._handler = handler
        self._failed = failed
        self._replied = replied
        self._settled = settled
        self._batch = batch
        self._timeout = timeout
        self._base = copy_context() if context is None else context.copy()
        self._base_values = tuple(self._base.values())
        self._context = self._base.copy()
        self._budget = budget
        self._slice_ns = slice_ns
        self.__name__ = self.__qualname__ = name
        self._coroutine: Coroutine[Any, Any, None] | None = None
        self._current: Message | list[Message] | None = None
        self._away = False
        """Suspended inside the handler."""
        self._waker: Waker | None = None
        self._stopping = False
        self._release = False
        self._task: Task[Any] | None = None
        self._thrown = False
        """A cancellation of the task has reached the handler."""
        self._timer: TimerHandle | None = None
        self._timed_out = False
        self._cancelling = 0
        self._began = 0.0
        mailbox._join(self)

    def stop(self, *, cancel: bool = False) -> None:
        """End after the current message; with ``cancel`` the task's next CancelledError releases it instead."""
        self._release = self._release or cancel
        self._stopping = True
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
        coroutine = self._started()
        return self._step(coroutine.send, value)

    def throw(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
        /,
    ) -> Any:
        """CancelledError while a handler runs, out of that handler: by ``timeout``, ``failed(message, TimeoutError)`` and
        the pump goes on; after ``stop(cancel=True)``, the message is released and the pump ends cancelled; otherwise
        ``failed(message, CancelledError)`` and the pump ends cancelled (its owner starts another). KeyboardInterrupt and
        SystemExit release the message and propagate.
        """
        error = _exception(typ, val, tb)
        coroutine = self._started()
        self._thrown = isinstance(error, CancelledError) and self._current is not None
        return self._step(coroutine.throw, error)

    def close(self) -> None:
        coroutine = self._started()
        if self._away:
            self._resume()
        self._context.run(coroutine.close)
        self._mailbox._leave(self)

    def __await__(self) -> Generator[Any, Any, None]:
        yield from Steps(self)

    @property
    def cr_await(self) -> object:
        return None if self._coroutine is None else self._inspected().cr_await

    @property
    def cr_code(self) -> CodeType | None:
        return Pump._run.__code__

    @property
    def cr_frame(self) -> FrameType | None:
        """The handler's frame while it is suspended: that is what a stack is read for."""
        if self._coroutine is None:
            return None
        outer = self._inspected()
        if self._away:
            frame = getattr(outer.cr_await, "cr_frame", None) or getattr(outer.cr_await, "gi_frame", None)
            if isinstance(frame, FrameType):
                return frame
        return outer.cr_frame

    @property
    def cr_running(self) -> bool:
        return self._coroutine is not None and self._inspected().cr_running

    def __repr__(self) -> str:
        return f"<Pump {self.__name__}>"

    def _inspected(self) -> CoroutineType[Any, Any, None]:
        assert isinstance(self._coroutine, CoroutineType)
        return self._coroutine

    def _started(self) -> Coroutine[Any, Any, None]:
        if self._coroutine is None:
            self._coroutine = self._run_batches() if self._batch else self._run()
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
            self._cancelling = _cancelling(self._task)
            self._timer = loop.call_at(self._began + self._timeout, self._expire)
        self._away = True
        self._mailbox._active(-1)

    def _resume(self) -> None:
        self._away = False
        self._mailbox._active(1)

    def _expire(self) -> None:
        self._timed_out = True
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        mailbox = self._mailbox
        handler = self._handler
        settled = self._settled
        timed = self._timeout is not None
        following = mailbox._next
        clock = mailbox._clock._monotonic
        base_is_empty = not self._base_values
        context = self._context
        finished: Message | None = None
        self._enter_service()
        try:
            while True:
                left = self._budget
                last = clock()
                until = last + self._slice_ns
                check = left - 1
                while left and not self._stopping:
                    message = following(finished)
                    finished = None
                    if message is None:
                        if await self._rest():
                            break
                        return
                    left -= 1
                    self._current = message
                    if timed:
                        self._began = get_running_loop().time()
                    began = 0
                    if message._stamp:
                        began = clock()
                        mailbox._wait.record(began - message._stamp)
                    try:
                        result = handler(message)
                        if type(result) is CoroutineType:
                            result = await result
                        elif result is not None and isawaitable(result):
                            result = await result
                        if message._extras is not None and message._extras.reply_to is not None:
                            await self._reply(message, result)
                        if settled is not None and not message._state & SETTLED:
                            settled(message, result)
                    except BaseException as error:
                        if not await self._fail(message, error):
                            raise
                    else:
                        if self._timer is not None or self._thrown:
                            self._disarm()
                        if message._state == IN_FLIGHT:
                            message._state = SETTLED
                            finished = message
                        elif message._settle():
                            message._state &= ~IN_FLIGHT
                            finished = message
                    if began:
                        mailbox._handle.record(clock() - began)
                    self._current = None
                    if context if base_is_empty else self._context_changed():
                        await FRESH_CONTEXT
                        context = self._context
                    if left == check:
                        now = clock()
                        if now >= until:
                            break
                        check = left - (_STRIDE if (now - last) << 4 < self._slice_ns else 1)
                        last = now
                if finished is not None:
                    mailbox._done(finished)
                    finished = None
                if self._stopping:
                    return
                await YIELD
        finally:
            if finished is not None:
                mailbox._done(finished)
            self._current = None
            mailbox._leave(self, counted=not self._away)

    async def _run_batches(self) -> None:
        mailbox = self._mailbox
        clock = mailbox._clock._monotonic
        self._enter_service()
        try:
            while True:
                left = self._budget
                until = clock() + self._slice_ns
                while left > 0 and not self._stopping:
                    messages = mailbox._take_batch(self._batch)
                    if not messages:
                        if await self._rest():
                            break
                        return
                    left -= len(messages)
                    await self._handle_batch(messages)
                    if self._context_changed():
                        await FRESH_CONTEXT
                    if clock() >= until:
                        break
                if self._stopping:
                    return
                await YIELD
        finally:
            self._current = None
            mailbox._leave(self, counted=not self._away)

    async def _handle_batch(self, messages: list[Message]) -> None:
        mailbox = self._mailbox
        began = mailbox._clock._monotonic()
        for message in messages:
            if message._stamp:
                mailbox._wait.record(began - message._stamp)
        self._current = messages
        if self._timeout is not None:
            self._began = get_running_loop().time()
        try:
            result = self._handler(messages)
            if result is not None and isawaitable(result):
                result = await result
            if self._settled is not None:
                for message in messages:
                    if not message.settled:
                        self._settled(message, result)
        except BaseException as error:
            if not await self._fail(messages, error):
                raise
        else:
            self._disarm()
            for message in messages:
                if message._settle():
                    mailbox.ack(message)
        mailbox._handle.record(mailbox._clock._monotonic() - began)
        self._current = None

    async def _reply(self, message: Message, result: Any) -> None:
        answer = self._replied(message, result)
        if answer is not None:
            await answer

    async def _fail(self, messages: Message | list[Message], error: BaseException) -> bool:
        """False when the pump ends with the error."""
        ours = isinstance(error, CancelledError) and self._thrown
        timed_out = self._timed_out
        cancelled_too = self._disarm()
        if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)) or (ours and self._release):
            self._give_back(messages)
            return False
        if ours and timed_out:
            ours = cancelled_too
            cancellation, error = error, TimeoutError(f"the handler took longer than {self._timeout} s")
            error.__cause__ = cancellation
        unsettled: Message | list[Message] | None
        if isinstance(messages, list):
            unsettled = [message for message in messages if not message.settled] or None
        else:
            unsettled = None if messages.settled else messages
        if unsettled is None:
            self._report(error)
            return not ours
        try:
            decision = self._failed(unsettled, error)
            if decision is not None:
                await decision
        except BaseException:
            self._give_back(unsettled)
            raise
        return not ours

    def _disarm(self) -> bool:
        """The handler is over. Whether the task was cancelled besides the timeout."""
        cancelled = self._thrown
        self._thrown = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            if self._timed_out:
                self._timed_out = False
                cancelled = _uncancel(self._task) > self._cancelling
            self._task = None
        return cancelled

    def _give_back(self, messages: Message | list[Message]) -> None:
        for message in reversed(messages) if isinstance(messages, list) else [messages]:
            if message._state & IN_FLIGHT and not message._state & SETTLED:
                self._mailbox.release(message)

    def _report(self, error: BaseException) -> None:
        """Nobody decides on a message that its handler has settled, but the error is not lost."""
        if isinstance(error, CancelledError):
            return
        get_running_loop().call_exception_handler(
            {"message": f"{self.__name__}: the handler failed after it had settled its message", "exception": error}
        )

    async def _rest(self) -> bool:
        """Wait for work; False when there will be none."""
        mailbox = self._mailbox
        if mailbox._finished():
            return False
        waker = self._waker = Waker(worker=True)
        try:
            if not mailbox._rest(waker):
                return True
            if self._stopping:
                mailbox._summon(waker)
            await waker.future
        except BaseException:
            mailbox._withdraw(waker)
            mailbox._active(1)
            raise
        finally:
            self._waker = None
        return True

    def _enter_service(self) -> None:
        self._mailbox._active(1)

    def _held(self) -> int:
        current = self._current
        return len(current) if isinstance(current, list) else int(current is not None)

    def _context_changed(self) -> bool:
        """By identity: an equal value is another value."""
        context = self._context
        values = self._base_values
        return len(context) != len(values) or not all(map(is_, context.values(), values))


def _exception(typ: type[BaseException] | BaseException, val: object, tb: TracebackType | None) -> BaseException:
    if isinstance(typ, BaseException):
        error = typ
    elif isinstance(val, BaseException):
        error = val
    else:
        error = typ() if val is None else typ(val)
    return error if tb is None else error.with_traceback(tb)


def _cancelling(task: Task[Any] | None) -> int:
    cancelling = getattr(task, "cancelling", None)
    return 0 if cancelling is None else int(cancelling())


def _uncancel(task: Task[Any] | None) -> int:
    """Python 3.10 does not count cancellations."""
    uncancel = getattr(task, "uncancel", None)
    return 0 if uncancel is None else int(uncancel())
