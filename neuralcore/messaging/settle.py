"""How deliveries end: the failure policy, dead letters and replies, once for all transports.

A Settlement belongs to one intake. The core calls it after a handler failed or answered, messages call it for their
settling verbs; what settling *does* is the link's, in the four methods at the end.
"""

from __future__ import annotations

import asyncio
import hashlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neuralcore._core import Mailbox, MailboxStats, Message
from neuralcore.messaging import headers
from neuralcore.messaging.context import BusContext, handling, log
from neuralcore.messaging.eager import begun
from neuralcore.messaging.errors import AlreadySettled, DecodeError, NotARequest, RequestFailed
from neuralcore.messaging.handler import SKIPPED
from neuralcore.messaging.lacking import missing
from neuralcore.messaging.names import dead_letter_channel
from neuralcore.messaging.retry import Reject, Retry, RetryPolicy, check_delay

if TYPE_CHECKING:
    import random

    from neuralcore.messaging.terms import Terms
    from neuralcore.messaging.timers import Timers

__all__ = ["Again", "Dead", "DeadLetter", "Settlement", "decide"]


@dataclass(frozen=True, slots=True)
class Again:
    delay: float


@dataclass(frozen=True, slots=True)
class Dead:
    reason: str


def decide(error: BaseException, attempt: int, policy: RetryPolicy, rng: random.Random) -> Again | Dead:
    """What a failed attempt leads to."""
    if isinstance(error, Reject):
        return Dead("rejected")
    if isinstance(error, DecodeError):
        return Dead("undecodable")
    if policy.exhausted(attempt):
        return Dead("attempts")
    if isinstance(error, Retry) and error.after is not None:
        return Again(check_delay(error.after, "Retry.after"))
    return Again(policy.delay(attempt, rng))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """What is published to the dead-letter channel, ready for ``publish(**fields)`` of any link."""

    channel: str
    payload: Any
    id: str
    priority: int
    headers: Mapping[str, str]
    key: str | None
    correlation_id: str | None
    content_type: str | None


def dead_letter(
    message: Message, terms: Terms, context: BusContext, reason: str, error: BaseException | None
) -> DeadLetter | None:
    """None when there is to be none: nobody wants one, or the message is a dead letter itself."""
    wanted = context.config(message.channel).dead_letter if terms.dead_letter is None else terms.dead_letter
    if wanted is False or _is_dead_letter(message):
        return None
    origin = f"{message.id}|{terms.group or ''}|{message.headers.get(headers.REPLAY, '0')}"
    added = {
        headers.DLQ_ORIGIN: message.channel,
        headers.DLQ_REASON: reason,
        headers.DLQ_ATTEMPTS: str(message.attempt),
        headers.DLQ_ID: message.id,
        headers.DLQ_PUBLISHED: str(message.timestamp_ns),
        headers.DLQ_TIME: str(context.clock.time_ns()),
    }
    if terms.group is not None:
        added[headers.DLQ_GROUP] = terms.group
    if error is not None:
        added[headers.DLQ_ERROR_TYPE] = type(error).__qualname__
        added[headers.DLQ_ERROR] = error_text(error)[: headers.MAX_ERROR_TEXT]
    return DeadLetter(
        channel=wanted or dead_letter_channel(message.channel),
        payload=message.payload,
        id=hashlib.blake2b(origin.encode(), digest_size=16).hexdigest(),
        priority=message.priority,
        headers={**message.headers, **added},
        key=message.key,
        correlation_id=message.correlation_id,
        content_type=message.content_type,
    )


def error_text(error: BaseException) -> str:
    """What it says, in characters that can be encoded, whatever its own ``__str__`` does."""
    try:
        text = str(error)
    except Exception as problem:  # noqa: BLE001 - it comes from a handler, and its message is to be settled all the same
        return f"(its text cannot be had: {type(problem).__qualname__})"
    return text.encode(errors="backslashreplace").decode()


def _is_dead_letter(message: Message) -> bool:
    return headers.DLQ_ORIGIN in message.headers or message.channel.startswith(headers.DEAD_LETTER_PREFIX)


class Settlement(ABC):
    """The core's Settler, and the callbacks of the pumps, of one intake."""

    settled: Callable[[Message, Any], None] | None = None
    """The pump's ``settled`` callback; None where acking the mailbox is all there is to do."""
    prepare: Callable[[Message], Awaitable[bool]] | None = None
    """What a message needs before someone who pulled it may have it; False when there is nothing to handle."""

    def __init__(self, context: BusContext, terms: Terms, timers: Timers) -> None:
        self.context = context
        self.terms = terms
        self._timers = timers
        self.mailbox: Mailbox
        """Set by the link right after construction: mailbox and settlement need each other."""
        self.dead_lettered = 0
        self._answered: OrderedDict[tuple[str, int], bool] = OrderedDict()
        """Requests in flight, by id and attempt, whose handler has replied or put the message off itself."""

    def around(self, call: Callable[[Any], Any], *, batch: bool) -> Callable[[Any], Any]:
        """What a pump calls, given what the bus would have it call."""
        return call

    def stats(self) -> MailboxStats:
        """The mailbox's counters, with what the transport knows better."""
        return self.mailbox.stats()

    # Callbacks of the pump

    def failed(self, what: Message | list[Message], error: BaseException) -> Awaitable[None] | None:
        """Settle a message, or every unsettled message of a batch, after an exception.

        A handler may have settled its message before: then there is at most a requester to tell.
        """
        if isinstance(what, list):
            return _all([self._fail(message, error) for message in what if message._settle()])
        answered = self._was_answered(what)
        if what._settle():
            return self._fail(what, error)
        return None if answered else self._answer_failure(what, error)

    def replied(self, message: Message, result: Any) -> Awaitable[None] | None:
        """Answer with what the handler returned, unless it has answered itself and returned nothing."""
        answered = self._was_answered(message)
        if result is SKIPPED or (result is None and answered):
            return None
        return self._answer(message, result, None)

    # The core's Settler protocol

    def ack(self, message: Message, /) -> Awaitable[None]:
        _open(message)
        return _done(self._ack(message))

    def nack(self, message: Message, delay: float | None, /) -> Awaitable[None]:
        retry = Retry() if delay is None else Retry(check_delay(delay, "nack(delay)"))
        _open(message)
        self._remember_answer(message)
        return _done(begun(self._fail(message, retry)))

    def reject(self, message: Message, reason: str, /) -> Awaitable[None]:
        _open(message)
        self._remember_answer(message)
        return _done(begun(self._fail(message, Reject(reason))))

    def release(self, message: Message, /) -> Awaitable[None]:
        _open(message)
        self._remember_answer(message)
        return _done(self._release(message))

    def reply(self, message: Message, payload: Any, /) -> Awaitable[None]:
        if message.reply_to is None:
            raise NotARequest(message.channel, message.id)
        work = self._reply(message, payload, None)
        self._remember_answer(message)
        return _done(begun(work))

    def transaction(self, message: Message, connection: Any | None, /) -> AbstractAsyncContextManager[Any]:
        """Settle it as done in a transaction."""
        raise missing("transactions", "nothing outlives this process")

    def due(self, mailbox: Mailbox, monotonic_ns: int, /) -> None:
        self._timers.due(mailbox, monotonic_ns)

    @abstractmethod
    def expired(self, message: Message, /) -> None: ...

    # The policy

    def _fail(self, message: Message, error: BaseException) -> Awaitable[None] | None:
        """Settle what failed. Whatever goes wrong in here, the message is not stranded."""
        try:
            work = self._judge(message, error)
        except Exception as problem:  # noqa: BLE001 - logged and counted; nobody else would settle it
            return self._rescue(message, problem)
        return None if work is None else self._guarded(message, work)

    async def _guarded(self, message: Message, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as problem:  # noqa: BLE001 - the same
            await _done(self._rescue(message, problem))

    def _rescue(self, message: Message, problem: Exception) -> Awaitable[None] | None:
        self.context.count("settling_failed")
        log.error(
            "message %s on %s could not be settled after its handler failed; it is tried again",
            message.id,
            message.channel,
            exc_info=problem,
        )
        try:
            return self._retry(message, self.terms.retry.cap)
        except Exception:  # noqa: BLE001 - giving it back is the last resort
            log.exception("message %s on %s cannot be retried; it is given back", message.id, message.channel)
            return self._release(message)

    def _judge(self, message: Message, error: BaseException) -> Awaitable[None] | None:
        decision = decide(error, message.attempt, self.terms.retry, self.context.rng)
        if isinstance(decision, Again):
            return self._retry(message, decision.delay)
        log.warning(
            "message %s on %s failed for good after %d attempt(s) (%s): %s: %s",
            message.id,
            message.channel,
            message.attempt,
            decision.reason,
            type(error).__qualname__,
            error_text(error),
        )
        answer = self._answer_failure(message, error)
        letter = self.letter(message, decision.reason, error)
        end = self._ack(message) if letter is None else self._dead_letter(message, letter)
        return _all([end, answer])

    # Replies: neither retried nor durable, and never the reason why a message is handled again

    def _answer(self, message: Message, payload: Any, error: RequestFailed | None) -> Awaitable[None] | None:
        try:
            work = self._reply(message, payload, error)
        except Exception as problem:  # noqa: BLE001 - logged and counted, and said to the requester
            return self._reply_lost(message, problem, told=error is not None)
        return None if work is None else self._answering(message, work, told=error is not None)

    async def _answering(self, message: Message, work: Awaitable[None], *, told: bool) -> None:
        try:
            await work
        except Exception as problem:  # noqa: BLE001 - the same
            await _done(self._reply_lost(message, problem, told=told))

    def _answer_failure(self, message: Message, error: BaseException) -> Awaitable[None] | None:
        if message.reply_to is None:
            return None
        return self._answer(message, None, RequestFailed(type(error).__qualname__, error_text(error)))

    def _reply_lost(self, message: Message, problem: Exception, *, told: bool) -> Awaitable[None] | None:
        """Tell the requester so, unless that is what could not be sent."""
        self.context.count("replies_lost")
        log.warning(
            "the reply to %s on %s could not be sent: %s: %s",
            message.id,
            message.channel,
            type(problem).__qualname__,
            error_text(problem),
        )
        return None if told else self._answer_failure(message, problem)

    def _remember_answer(self, message: Message) -> None:
        """So that what the handler returns or raises is no second one; what is pulled has no handler."""
        if message.reply_to is not None and handling.get() is self.context:
            self._answered[message.id, message.attempt] = True
            if len(self._answered) > _MOST_ANSWERED:
                self._answered.popitem(last=False)

    def _was_answered(self, message: Message) -> bool:
        return bool(self._answered) and self._answered.pop((message.id, message.attempt), False)

    def letter(self, message: Message, reason: str, error: BaseException | None) -> DeadLetter | None:
        """The dead letter to publish, counted; None (and counted as discarded) when there is to be none."""
        letter = dead_letter(message, self.terms, self.context, reason, error)
        if letter is None:
            self.context.count("discarded")
        else:
            self.dead_lettered += 1
        return letter

    def _spawn(self, work: Awaitable[None]) -> None:
        """Do it beside the workers, on the home loop."""
        self.context.call_home(_start, work)

    # What a link does. None: it is done; an awaitable: it is done when that is.

    @abstractmethod
    def _ack(self, message: Message) -> Awaitable[None] | None: ...

    @abstractmethod
    def _retry(self, message: Message, delay: float) -> Awaitable[None] | None: ...

    @abstractmethod
    def _release(self, message: Message) -> Awaitable[None] | None: ...

    @abstractmethod
    def _dead_letter(self, message: Message, letter: DeadLetter) -> Awaitable[None] | None:
        """Store the letter and settle the original."""

    @abstractmethod
    def _reply(self, message: Message, payload: Any, error: RequestFailed | None) -> Awaitable[None] | None: ...


_MOST_ANSWERED = 1024
"""Answers that are remembered; forgetting one costs a reply that comes late."""


def _open(message: Message) -> None:
    if not message._settle():
        raise AlreadySettled(message.channel, message.id)


_running: set[asyncio.Task[None]] = set()


def _start(work: Awaitable[None]) -> None:
    task = asyncio.ensure_future(_done(work))
    _running.add(task)
    task.add_done_callback(_running.discard)


def _all(works: Iterable[Awaitable[None] | None]) -> Awaitable[None] | None:
    pending = [work for work in works if work is not None]
    return _sequence(pending) if pending else None


async def _sequence(works: list[Awaitable[None]]) -> None:
    rest = iter(works)
    try:
        for work in rest:
            await work
    finally:
        for work in rest:  # only after a cancellation
            if isinstance(work, Coroutine):
                work.close()


async def _done(work: Awaitable[None] | None) -> None:
    if work is not None:
        await work
