"""How deliveries end: the failure policy, dead letters and replies, once for all transports.

A Settlement belongs to one intake. The core calls it after a handler failed or answered, messages call it for their
settling verbs; what settling *does* is the link's, in the four methods at the end.
"""

from __future__ import annotations

import asyncio
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neuralcore._core import Mailbox, MailboxStats, Message
from neuralcore.messaging import headers
from neuralcore.messaging.context import BusContext, log
from neuralcore.messaging.errors import AlreadySettled, DecodeError, NotARequest, RequestFailed
from neuralcore.messaging.handler import SKIPPED
from neuralcore.messaging.names import dead_letter_channel
from neuralcore.messaging.retry import Reject, Retry, RetryPolicy

if TYPE_CHECKING:
    import random

    from neuralcore.messaging.intake import Terms
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
        return Again(error.after)
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
        added[headers.DLQ_ERROR] = str(error)[: headers.MAX_ERROR_TEXT]
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
        self._answered: set[str] = set()
        """Requests in flight that their handler has answered itself."""

    def around(self, call: Callable[[Any], Any], *, batch: bool) -> Callable[[Any], Any]:
        """What a pump calls, given what the bus would have it call."""
        return call

    def stats(self) -> MailboxStats:
        """The mailbox's counters, with what the transport knows better."""
        return self.mailbox.stats()

    # Callbacks of the pump

    def failed(self, what: Message | list[Message], error: BaseException) -> Awaitable[None] | None:
        """Settle a message, or every unsettled message of a batch, after an exception."""
        if isinstance(what, list):
            return _all([self._fail(message, error) for message in what if message._settle()])
        return self._fail(what, error) if what._settle() else None

    def replied(self, message: Message, result: Any) -> Awaitable[None] | None:
        if result is SKIPPED:
            return None
        if result is None and message.id in self._answered:
            self._answered.discard(message.id)
            return None
        return self._reply(message, result, None)

    # The core's Settler protocol

    def ack(self, message: Message, /) -> Awaitable[None]:
        _open(message)
        return _done(self._ack(message))

    def nack(self, message: Message, delay: float | None, /) -> Awaitable[None]:
        _open(message)
        return _done(self._fail(message, Retry(after=delay)))

    def reject(self, message: Message, reason: str, /) -> Awaitable[None]:
        _open(message)
        return _done(self._fail(message, Reject(reason)))

    def release(self, message: Message, /) -> Awaitable[None]:
        _open(message)
        return _done(self._release(message))

    def reply(self, message: Message, payload: Any, /) -> Awaitable[None]:
        if message.reply_to is None:
            raise NotARequest(message.channel, message.id)
        self._answered.add(message.id)
        return _done(self._reply(message, payload, None))

    def due(self, mailbox: Mailbox, monotonic_ns: int, /) -> None:
        self._timers.due(mailbox, monotonic_ns)

    @abstractmethod
    def expired(self, message: Message, /) -> None: ...

    # The policy

    def _fail(self, message: Message, error: BaseException) -> Awaitable[None] | None:
        decision = decide(error, message.attempt, self.terms.retry, self.context.rng)
        if isinstance(decision, Again):
            return self._retry(message, decision.delay)
        log.warning(
            "message %s on %s failed for good after %d attempt(s) (%s): %r",
            message.id,
            message.channel,
            message.attempt,
            decision.reason,
            error,
        )
        answer = None
        if message.reply_to is not None:
            self._answered.discard(message.id)
            failure = RequestFailed(type(error).__qualname__, str(error))
            answer = self._reply(message, None, failure)
        letter = self.letter(message, decision.reason, error)
        end = self._ack(message) if letter is None else self._dead_letter(message, letter)
        return _all([answer, end])

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
    for work in works:
        await work


async def _done(work: Awaitable[None] | None) -> None:
    if work is not None:
        await work
