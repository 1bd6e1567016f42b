"""How deliveries of the native transport end: in the mailbox itself, and their dead letters in another one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from neuralcore._core import Message
from neuralcore.messaging.context import log
from neuralcore.messaging.errors import RequestFailed
from neuralcore.messaging.handler import SKIPPED
from neuralcore.messaging.paths import Originals
from neuralcore.messaging.settle import DeadLetter, Settlement
from neuralcore.messaging.terms import Terms

if TYPE_CHECKING:
    from neuralcore.messaging.local import LocalLink

__all__ = ["LocalSettlement"]


class LocalSettlement(Settlement):
    def __init__(self, link: LocalLink, terms: Terms) -> None:
        super().__init__(link.context, terms, link.timers)
        self._link = link
        self._address = link.address
        self._resolve = link.replies.resolve
        self._originals = Originals()
        self.reshape()

    def reshape(self) -> None:
        """Channels were configured: what is pulled is prepared only where one is isolated."""
        self.prepare = self._prepare if self._link.isolated() else None

    async def _prepare(self, message: Message) -> bool:
        if message.channel in self._link.isolated():
            self._originals.lend(message)
        return True

    def around(self, call: Callable[[Any], Any], *, batch: bool) -> Callable[[Any], Any]:
        return self._originals.around(call, self._link.isolated) if self._link.isolated() else call

    def failed(self, what: Message | list[Message], error: BaseException) -> Awaitable[None] | None:
        return self._one_by_one(what, error) if isinstance(what, list) else super().failed(what, error)

    async def _one_by_one(self, messages: list[Message], error: BaseException) -> None:
        """Those that it has not come to when its worker is cancelled are unsettled still: the pump gives them back."""
        for message in messages:
            work = super().failed(message, error)
            if work is not None:
                await work

    def replied(self, message: Message, result: Any) -> Awaitable[None] | None:
        if result is None or result is SKIPPED or self._answered or message.reply_to != self._address:
            return super().replied(message, result)
        self._resolve(message.correlation_id, result)
        return None

    def expired(self, message: Message, /) -> None:
        if self.terms.expired == "dead_letter":
            letter = self.letter(message, "expired", None)
            if letter is not None:
                self._spawn(self._bury_expired(message, letter))

    async def _bury_expired(self, message: Message, letter: DeadLetter) -> None:
        try:
            await self._link.bury(letter)
        except Exception:  # noqa: BLE001 - logged and counted; there is nothing left to try again
            self._unburied()
            log.exception("the dead letter of %s, which had expired, could not be published", message.id)

    def _unburied(self) -> None:
        self.context.count("dead_letter_failed")
        self.dead_lettered -= 1

    def _fail(self, message: Message, error: BaseException) -> Awaitable[None] | None:
        self._originals.take_back(message)
        return super()._fail(message, error)

    def _ack(self, message: Message) -> None:
        if self._originals:
            self._originals.pop(message, None)
        self.mailbox.ack(message)

    def _retry(self, message: Message, delay: float) -> None:
        self.mailbox.retry(message, int(delay * 1e9))

    def _release(self, message: Message) -> None:
        self._originals.take_back(message)
        self.mailbox.release(message)

    async def _dead_letter(self, message: Message, letter: DeadLetter) -> None:
        try:
            await self._link.bury(letter)
        except Exception:  # noqa: BLE001 - logged and counted; whatever it was, the message is not to be lost for it
            self._unburied()
            log.exception("the dead letter of %s could not be published; it is tried again", message.id)
            self.mailbox.retry(message, int(self.terms.retry.cap * 1e9))
        except BaseException:
            # Its worker was cancelled while the letter waited for room.
            self.dead_lettered -= 1
            self.mailbox.release(message)
            raise
        else:
            self.mailbox.ack(message)

    def _reply(self, message: Message, payload: Any, error: RequestFailed | None) -> Awaitable[None] | None:
        return self._link.answer(message, payload, error)
