"""The coroutines that pumps drive: message after message, or batch after batch."""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import Awaitable
from inspect import isawaitable, iscoroutinefunction
from itertools import repeat
from operator import is_
from time import monotonic_ns
from typing import TYPE_CHECKING, Final

from neuralcore.fallback.failing import disarm, fail
from neuralcore.fallback.message import IN_FLIGHT, SETTLED
from neuralcore.fallback.steps import FRESH_CONTEXT, YIELD
from neuralcore.fallback.waker import Waker

if TYPE_CHECKING:
    from neuralcore.fallback.message import Message
    from neuralcore.fallback.pump import Pump

__all__ = ["handle_batches", "handle_messages"]

STRIDE: Final = 16
"""While handlers are fast, the clock of the time slice is read once for so many of them."""


async def handle_messages(pump: Pump) -> None:  # noqa: C901, PLR0915 - a call in here is paid for by every message
    mailbox = pump._mailbox
    handler = pump._handler
    is_async = iscoroutinefunction(handler)
    plain = pump._settled is None and pump._timeout is None
    acquire = mailbox._lock.acquire
    release = mailbox._lock.release
    slots = mailbox._slots
    queue = mailbox._queue
    context = pump._context
    values = tuple(pump._base.values())
    single = next(iter(pump._base)) if len(values) == 1 else None
    finished: Message | None = None
    """Handled and settled, but its slot is not given back yet: that is done together with taking the next."""
    mailbox._goes_on()
    try:
        while not pump._ends():
            message: Message | None = None
            left = pump._budget
            stride = 1 if pump._slice_ns else left
            last = monotonic_ns()
            until = last + pump._slice_ns
            while left > 0:
                for _ in repeat(None, stride):
                    acquire()
                    try:
                        top = queue.top
                        if (not top or top[0]._extras is None) and not slots.waiters:
                            if finished is not None:
                                slots.ceiling += 1
                                finished = None
                            if not top:
                                message = None
                                left = 0
                                break
                            message = top.popleft()
                            if not top and queue.order:
                                queue.advance()
                        else:
                            message = None
                    finally:
                        release()
                    if message is None:
                        message = mailbox._next(finished)
                        finished = None
                        if message is None:
                            left = 0
                            break
                    pump._current = message
                    if plain and message._extras is None:
                        try:
                            if is_async:
                                await handler(message)
                            else:
                                result = handler(message)
                                if result is not None and isawaitable(result):
                                    await result
                        except BaseException as error:
                            if not await fail(pump, message, error):
                                raise
                        else:
                            if message._state == IN_FLIGHT:
                                message._state = SETTLED
                                finished = message
                            else:
                                _settle(pump, message)
                    else:
                        await _handle(pump, message)
                    if values:
                        # By identity: an equal value is another value.
                        if single is None:
                            changed = len(context) != len(values) or not all(map(is_, context.values(), values))
                        else:
                            changed = len(context) != 1 or context.get(single) is not values[0]
                        if changed:
                            pump._current = None
                            await FRESH_CONTEXT
                            context = pump._context
                    elif context:
                        pump._current = None
                        await FRESH_CONTEXT
                        context = pump._context
                    if pump._attention:
                        _attend(pump)
                        if pump._attention:
                            left = 0
                            break
                pump._current = None
                left -= stride
                now = monotonic_ns()
                if pump._slice_ns:
                    if now >= until:
                        break
                    stride = STRIDE if now - last < pump._slice_ns >> 4 else 1
                stride = min(stride, left)
                last = now
            if finished is not None:
                mailbox._done(finished)
                finished = None
            if message is None:
                if not await _rest(pump):
                    return
            elif not pump._ends():
                await YIELD
    finally:
        if finished is not None:
            mailbox._done(finished)
        pump._current = None
        mailbox._leave(pump, active=not pump._away)


def _attend(pump: Pump) -> None:
    """After a message during which something happened to the pump."""
    disarm(pump)
    if pump._measured:
        clock = pump._mailbox._clock
        pump._mailbox._handle.record(clock._monotonic() - pump._measured)
        pump._measured = 0
    pump._attention = pump._stopping


def _settle(pump: Pump, message: Message) -> None:
    """It was handled; its slot is given back unless its handler has settled it."""
    if message._settle():
        message._state &= ~IN_FLIGHT
        pump._mailbox._done(message)


async def _handle(pump: Pump, message: Message) -> None:
    """One that is timed, measured, keyed, answered, or settled elsewhere."""
    began = _begin(pump, message)
    try:
        result = pump._handler(message)
        if result is not None and isawaitable(result):
            result = await result
        extras = message._extras
        if extras is not None and extras.reply_to is not None:
            answer: Awaitable[None] | None = pump._replied(message, result)
            if answer is not None:
                await answer
        if pump._settled is not None and not message._state & SETTLED:
            pump._settled(message, result)
    except BaseException as error:
        if not await fail(pump, message, error):
            raise
    else:
        if pump._attention:
            disarm(pump)
        _settle(pump, message)
    finally:
        if began:
            pump._mailbox._handle.record(pump._mailbox._clock._monotonic() - began)


async def handle_batches(pump: Pump) -> None:
    mailbox = pump._mailbox
    values = tuple(pump._base.values())
    finished: list[Message] = []
    mailbox._goes_on()
    try:
        while not pump._ends():
            left = pump._budget
            until = monotonic_ns() + pump._slice_ns
            messages: list[Message] = []
            while left > 0 and not pump._ends():
                settled = finished
                finished = []
                messages = mailbox._next_batch(settled, pump._batch)
                if not messages:
                    break
                finished = await _handle_batch(pump, messages)
                pump._current = None
                context = pump._context
                if len(context) != len(values) or not all(map(is_, context.values(), values)):
                    await FRESH_CONTEXT
                left -= len(messages)
                if pump._slice_ns and monotonic_ns() >= until:
                    break
            mailbox._next_batch(finished, 0)
            finished = []
            if pump._ends():
                return
            if messages:
                await YIELD
            elif not await _rest(pump):
                return
    finally:
        mailbox._next_batch(finished, 0)
        pump._current = None
        mailbox._leave(pump, active=not pump._away)


async def _handle_batch(pump: Pump, messages: list[Message]) -> list[Message]:
    """Those that are settled now, and still have their slots."""
    mailbox = pump._mailbox
    pump._current = list(messages)
    began = max([_begin(pump, message) for message in messages])
    try:
        result = pump._handler(pump._current)
        if result is not None and isawaitable(result):
            result = await result
        if pump._settled is not None:
            for message in messages:
                if not message._state & SETTLED:
                    pump._settled(message, result)
    except BaseException as error:
        if not await fail(pump, messages, error):
            raise
        return []
    finally:
        if began:
            mailbox._handle.record(mailbox._clock._monotonic() - began)
    disarm(pump)
    finished = []
    for message in messages:
        if message._state == IN_FLIGHT:
            message._state = SETTLED
            finished.append(message)
        elif message._settle():
            message._state &= ~IN_FLIGHT
            finished.append(message)
    return finished


def _begin(pump: Pump, message: Message) -> int:
    """When its handler began, if it is one of those that are measured."""
    if pump._timeout is not None:
        pump._began = get_running_loop().time()
    if message._extras is None or not message._stamp:
        return 0
    now = pump._mailbox._clock._monotonic()
    pump._mailbox._wait.record(now - message._stamp)
    return now


async def _rest(pump: Pump) -> bool:
    """Wait for work; False when there will be none."""
    mailbox = pump._mailbox
    pump._measured = 0
    waker = pump._waker
    if waker is None:
        waker = pump._waker = Waker(worker=True)
    elif waker.future.done():
        waker.future = waker.loop.create_future()
    resting = mailbox._rest(waker)
    if not resting:
        if resting is None:
            return True
        mailbox._finished()
        return False
    if pump._ends():
        mailbox._summon(waker)
    try:
        await waker.future
    except BaseException:
        mailbox._withdraw(waker)
        mailbox._goes_on()
        raise
    if mailbox._woken_ns:
        pump._measured = mailbox._clock._monotonic()
        pump._attention = True
        mailbox._wait.record(pump._measured - mailbox._woken_ns)
        mailbox._woken_ns = 0
    return True
