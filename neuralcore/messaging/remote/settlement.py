"""How deliveries of a remote transport begin and end: acceptance, decoding, suspects, and the commits of verdicts."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

from neuralcore._core import MailboxStats, Message
from neuralcore.messaging import headers
from neuralcore.messaging.context import log
from neuralcore.messaging.errors import AlreadySettled, DecodeError, LeaseLost, RequestFailed
from neuralcore.messaging.handler import SKIPPED
from neuralcore.messaging.remote.acks import confirm, lose
from neuralcore.messaging.remote.holding import Holding
from neuralcore.messaging.remote.wire import decode, letter_envelope, repaired, to_message
from neuralcore.messaging.remote.work import Done, Told, answer_on
from neuralcore.messaging.settle import DeadLetter, Settlement
from neuralcore.messaging.terms import Terms
from neuralcore.messaging.transport import Delivery, Envelope, Outcome, PublishStatus, SettleStatus
from neuralcore.messaging.transport import Settlement as Verdict

if TYPE_CHECKING:
    from neuralcore.messaging.remote.link import RemoteLink
    from neuralcore.messaging.remote.transactions import BusTransaction

__all__ = ["RemoteSettlement"]

Call = Callable[[Any], Any]


class RemoteSettlement(Settlement):
    def __init__(self, link: RemoteLink, terms: Terms) -> None:
        super().__init__(link.context, terms, link.timers)
        self._link = link
        self.holding = Holding(link.context.clock)
        self._not_acked = {"retried": 0, "released": 0}
        self.returned = 0
        """What was released since the bus began to close, other than by ``give_back``."""
        self._lock = Lock()

    # Deliveries come in

    def accept(self, delivery: Delivery) -> Message | None:
        """On the home loop. Its message, if there is one to be handled."""
        if delivery.lost:
            return None
        try:
            message = to_message(delivery)
        except Exception as error:  # noqa: BLE001 - who has written the envelope may have written anything
            self._refuse_malformed(delivery, error)
            return None
        self.holding.begin(delivery, message)
        self._admit(delivery, message)
        return message

    def _admit(self, delivery: Delivery, message: Message) -> None:
        if message.headers.get(headers.REPLAY_GROUP, self.terms.group) != self.terms.group:
            self._tell(message, Outcome.ACK)
        elif not delivery.suspect:
            self.offer(message)
        elif delivery.attempt > self.terms.retry.max_attempts:
            self._bury_poison(message)
        else:
            self._link.suspects.add(self, delivery, message)

    def _bury_poison(self, message: Message) -> None:
        """It ended the process each time it was tried; no handler gets it again."""
        message._settle()
        log.error("message %s on %s killed every process that handled it", message.id, message.channel)
        if message.reply_to is not None:
            self._link.send_reply(message, None, RequestFailed("Poison", "it killed every process that handled it"))
        self._bury(message, "poison")

    def _refuse_malformed(self, delivery: Delivery, error: Exception) -> None:
        """What came is no message, and stays none."""
        self.context.count("malformed")
        log.error("what came for %r is no message (%s): %r", self.terms.pattern, error, delivery.envelope)
        try:
            self._bury_malformed(delivery, error)
        except Exception:  # noqa: BLE001 - as above
            log.exception("no dead letter can be made of it: the transport has it back, for later")
            delay_ns = round(self.terms.retry.cap * 1e9)
            verdict = Verdict(delivery, Outcome.NACK, delay_ns)
            self._link.committer.submit(Told(_ignore, settlement=verdict, persistent=True))

    def _bury_malformed(self, delivery: Delivery, error: Exception) -> None:
        """What there is of it becomes a dead letter."""
        envelope = repaired(delivery.envelope, self.terms.pattern)
        message = to_message(delivery, envelope)
        message._settle()
        self.holding.begin(delivery, message)
        self._bury(message, "undecodable", error, envelope)

    def _bury(
        self, message: Message, reason: str, error: Exception | None = None, original: Envelope | None = None
    ) -> None:
        letter = self.letter(message, reason, error)
        if letter is None:
            self._tell(message, Outcome.ACK)
        else:
            self._send_letter(message, letter, original=original)

    def withdraw(self, deliveries: Sequence[Delivery]) -> list[Message]:
        """Take these out of the mailbox, as far as no handler has them."""
        wanted = set(deliveries)
        out: list[Message] = []
        if not wanted:
            return out
        for message in self.mailbox.clear():
            if message.delivery in wanted:
                out.append(message)
            else:
                self.offer(message)
        return out

    def offer(self, message: Message) -> None:
        try:
            self.mailbox.offer(message)
        except RuntimeError:  # closed meanwhile, perhaps by another thread
            self.give_back_soon(message)

    def lost(self, deliveries: Sequence[Delivery]) -> None:
        """Another consumer may have them: those that wait are dropped, handlers that run can see it."""
        mine = self.holding.mine(deliveries)
        self.withdraw(mine)
        for delivery in mine:
            message = self.holding.end(delivery, handled=False)
            if message is not None:
                lose(self.context, message)
                self._ended(delivery)

    # Around the handler

    def around(self, call: Call, *, batch: bool) -> Call:
        """Decode just before the handler, and store a suspect's attempt before it."""
        return self._batches(call) if batch else self._singles(call)

    def _singles(self, call: Call) -> Call:
        codec = self._link.codec

        def handle(message: Message) -> Any:
            delivery: Any = message.delivery
            if message.lease_lost or delivery.suspect:
                return self._carefully(call, message)
            self.holding.replace(delivery, message)
            decode(codec, message, delivery)
            return call(message)

        return handle

    async def _carefully(self, call: Call, message: Message) -> Any:
        if not await self._allowed(message):
            return SKIPPED
        decode(self._link.codec, message, _delivery(message))
        return await _driven(call(message))

    def _batches(self, call: Call) -> Call:
        async def handle(messages: list[Message]) -> Any:
            ready = [message for message in messages if await self._prepared(message)]
            return await _driven(call(ready)) if ready else SKIPPED

        return handle

    async def prepare(self, message: Message) -> bool:
        """Make it ready for who pulled it; False when there is nothing to handle."""
        self.holding.pulled(_delivery(message))
        return await self._prepared(message)

    async def _prepared(self, message: Message) -> bool:
        if not await self._allowed(message):
            return False
        try:
            decode(self._link.codec, message, _delivery(message))
        except DecodeError as error:
            await _driven(self.failed(message, error))
            return False
        return True

    async def _allowed(self, message: Message) -> bool:
        """It is still ours, and if it is suspect its attempt is stored."""
        delivery = _delivery(message)
        self.holding.replace(delivery, message)
        if delivery.suspect and not message.lease_lost:
            done = await self._commit(delivery, Outcome.ATTEMPT)
            if done.settled is not SettleStatus.SETTLED:  # or this bus closes, and was not told
                self.lost([delivery])
        if not message.lease_lost:
            return True
        if message._settle():
            self.mailbox.ack(message)
        return False

    # The pump's callbacks

    def settled(self, message: Message, result: Any) -> None:
        """The handler returned; the pump acks the mailbox."""
        delivery: Any = message.delivery
        if self.holding.end(delivery) is not None:
            self._ended(delivery)
            self._link.committer.ack(message, delivery)

    def expired(self, message: Message, /) -> None:
        letter = self.letter(message, "expired", None) if self.terms.expired == "dead_letter" else None
        if letter is None:
            self._tell(message, Outcome.ACK)
        else:
            self._send_letter(message, letter)

    # Explicit verbs say when they came too late

    def ack(self, message: Message, /) -> Awaitable[None]:
        return _in_time(message, super().ack(message))

    def nack(self, message: Message, delay: float | None, /) -> Awaitable[None]:
        return _in_time(message, super().nack(message, delay))

    def reject(self, message: Message, reason: str, /) -> Awaitable[None]:
        return _in_time(message, super().reject(message, reason))

    def release(self, message: Message, /) -> Awaitable[None]:
        return _in_time(message, super().release(message))

    @asynccontextmanager
    async def transaction(self, message: Message, connection: Any | None, /) -> AsyncIterator[BusTransaction]:
        """Raises AlreadySettled, and LeaseLost when somebody else may have it: then the block has not happened."""
        if message.settled:
            raise AlreadySettled(message.channel, message.id)
        delivery = _delivery(message)
        async with self._link.transaction(connection) as inner:
            yield inner
            status = await inner.settle(Verdict(delivery, Outcome.ACK))
            if status is not SettleStatus.SETTLED:
                lose(self.context, message)
                raise LeaseLost(message.channel, message.id)
        if message._settle():
            self.mailbox.ack(message)
            self._end(delivery, Outcome.ACK)

    # What settling does

    def _ack(self, message: Message) -> Awaitable[None]:
        self.mailbox.ack(message)
        return self._told(message, Outcome.ACK)

    def _retry(self, message: Message, delay: float) -> Awaitable[None]:
        self._count("retried")
        self.mailbox.ack(message)
        return self._told(message, Outcome.NACK, delay_ns=round(delay * 1e9), pass_key=not self.terms.hold_keys)

    def _release(self, message: Message) -> Awaitable[None]:
        self._count("released")
        self.mailbox.ack(message)
        return self._told(message, Outcome.RELEASE)

    def _dead_letter(self, message: Message, letter: DeadLetter) -> Awaitable[None]:
        future: asyncio.Future[None]
        future, resolve = answer_on(self.context)

        def stored(refused: bool) -> None:
            self.mailbox.ack(message)
            if refused:
                self._count("retried")
            resolve(None)

        self._send_letter(message, letter, stored)
        return future

    def _reply(self, message: Message, payload: Any, error: RequestFailed | None) -> None:
        """It leaves beside the handlers: a lost reply is the requester's to notice."""
        self._link.send_reply(message, payload, error)

    async def give_back(self, messages: Sequence[Message]) -> int:
        """Of messages that no handler has, how many the transport took back."""
        deliveries = [_delivery(message) for message in messages]
        told = [self._commit(each, Outcome.RELEASE) for each in deliveries if self._end(each, Outcome.RELEASE)]
        done = await asyncio.gather(*told)
        return sum(each.settled is SettleStatus.SETTLED for each in done)

    def give_back_soon(self, message: Message) -> None:
        self._tell(message, Outcome.RELEASE)

    def stats(self) -> MailboxStats:
        """For the mailbox every message that left it was acked; the transport knows better."""
        with self._lock:
            retried, released = self._not_acked["retried"], self._not_acked["released"]
        stats = self.mailbox.stats()
        return stats._replace(
            acked=stats.acked - retried - released,
            retried=stats.retried + retried,
            released=stats.released + released,
        )

    def _count(self, what: str) -> None:
        with self._lock:
            self._not_acked[what] += 1

    # Commits

    def _tell(
        self,
        message: Message,
        outcome: Outcome,
        *,
        done: Callable[[Done], object] | None = None,
        delay_ns: int = 0,
        pass_key: bool = False,
    ) -> bool:
        """Hand the verdict to the committer; False when there is no lease left to settle."""
        delivery = _delivery(message)
        if not self._end(delivery, outcome):
            return False

        def confirmed(result: Done) -> None:
            confirm(self.context, message, result)
            if outcome is Outcome.RELEASE and result.settled is SettleStatus.SETTLED:
                self.returned += self._link.closing
            if done is not None:
                done(result)

        verdict = Verdict(delivery, outcome, delay_ns, pass_key)
        self._link.committer.submit(Told(confirmed, settlement=verdict, persistent=True))
        return True

    def _told(
        self, message: Message, outcome: Outcome, *, delay_ns: int = 0, pass_key: bool = False
    ) -> Awaitable[None]:
        future: asyncio.Future[None]
        future, resolve = answer_on(self.context)

        def done(result: Done) -> None:
            resolve(None)

        if not self._tell(message, outcome, done=done, delay_ns=delay_ns, pass_key=pass_key):
            resolve(None)
        return future

    def _commit(self, delivery: Delivery, outcome: Outcome) -> asyncio.Future[Done]:
        future: asyncio.Future[Done]
        future, resolve = answer_on(self.context)
        self._link.committer.submit(Told(resolve, settlement=Verdict(delivery, outcome), persistent=True))
        return future

    def _send_letter(
        self,
        message: Message,
        letter: DeadLetter,
        stored: Callable[[bool], object] = lambda refused: None,
        *,
        original: Envelope | None = None,
    ) -> None:
        """The letter is stored and the original acked, in one commit; the message is held until then."""
        delivery = _delivery(message)

        def done(result: Done) -> None:
            refused = result.published in (PublishStatus.REFUSED, PublishStatus.DROPPED)
            stored(refused)
            if refused:
                self._undeliverable(message, result)
            elif self._end(delivery, Outcome.ACK):
                confirm(self.context, message, result)

        envelope = letter_envelope(letter, original or delivery.envelope, self.context.clock.time_ns())
        verdict = Verdict(delivery, Outcome.ACK)
        self._link.committer.submit(Told(done, publish=envelope, settlement=verdict, persistent=True))

    def _undeliverable(self, message: Message, result: Done) -> None:
        """The dead-letter channel does not take it; the message is not to be lost for that."""
        self.context.count("dead_letter_failed")
        self.dead_lettered -= 1
        log.error(
            "the dead letter of %s was %s (%s); it is tried again",
            message.id,
            result.published.value if result.published else "not stored",
            result.reason or "by the overflow policy of its channel",
        )
        self._tell(message, Outcome.NACK, delay_ns=round(self.terms.retry.cap * 1e9))

    def _end(self, delivery: Delivery, outcome: Outcome) -> bool:
        """False when it was lost, or settled, before."""
        if self.holding.end(delivery, handled=outcome is not Outcome.RELEASE) is None:
            return False
        self._ended(delivery)
        return True

    def _ended(self, delivery: Delivery) -> None:
        if delivery.suspect:
            self.context.call_home(self._link.suspects.ended, delivery)


def _delivery(message: Message) -> Delivery:
    delivery = message.delivery
    assert isinstance(delivery, Delivery), "a remote intake's messages come from its transport"
    return delivery


def _ignore(done: Done) -> None:
    """Whatever became of it."""


async def _in_time(message: Message, work: Awaitable[None]) -> None:
    await work
    if message.lease_lost:
        raise LeaseLost(message.channel, message.id)


async def _driven(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result
