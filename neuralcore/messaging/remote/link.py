"""The bus on any transport that is not its own mailboxes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, NoReturn

from neuralcore._core import Message, RouteStats
from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.codec import Codec
from neuralcore.messaging.context import BusContext, log
from neuralcore.messaging.errors import (
    RequestFailed,
    UnknownChannel,
)
from neuralcore.messaging.intake import Intake
from neuralcore.messaging.lacking import missing
from neuralcore.messaging.link import Link
from neuralcore.messaging.loops import in_loop
from neuralcore.messaging.middleware import Publication, compose_publish
from neuralcore.messaging.names import INBOX_PREFIX, matches, near_misses, validate_channel
from neuralcore.messaging.remote.committer import Committer
from neuralcore.messaging.remote.declarations import Declarations
from neuralcore.messaging.remote.feeder import Feeder, settlement_of
from neuralcore.messaging.remote.inbox import ReplyInbox, failure_headers
from neuralcore.messaging.remote.many import PublishMany
from neuralcore.messaging.remote.needs import check_channel, check_start, check_subscription
from neuralcore.messaging.remote.outlet import Outlet, Publisher
from neuralcore.messaging.remote.runtime import LinkRuntime
from neuralcore.messaging.remote.settlement import RemoteSettlement
from neuralcore.messaging.remote.suspects import Suspects
from neuralcore.messaging.remote.transactions import BusTransaction, transaction
from neuralcore.messaging.remote.work import Done, Told
from neuralcore.messaging.replies import Replies
from neuralcore.messaging.settle import Settlement
from neuralcore.messaging.terms import Terms
from neuralcore.messaging.timers import Timers
from neuralcore.messaging.transport import Cursor, Delivery, Envelope, Outcome, PublishStatus, Transport
from neuralcore.messaging.transport import Settlement as Verdict

if TYPE_CHECKING:
    from neuralcore.messaging.dead_letters import DeadLetters

__all__ = ["RemoteLink"]

_FLUSH = 5.0
"""Seconds that closing waits for the last settlements."""


class RemoteLink(Link):
    def __init__(self, transport: Transport, context: BusContext, timers: Timers, replies: Replies) -> None:
        super().__init__(context, timers, replies)
        self.transport = transport
        self.capabilities = transport.capabilities
        self.codec = Codec()
        self.suspects = Suspects()
        self._declarations = Declarations(context, transport)
        self.committer = Committer(context, transport, self._declarations)
        self._publisher = Publisher(context, self.committer, self.capabilities, self.codec)
        self.closing = False
        self._outlets: dict[str, Outlet] = {}
        self._feeders: dict[str | None, Feeder] = {}
        self._intakes: list[Intake] = []
        self._inbox: ReplyInbox | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._steps: Callable[[Publication], Any] | None = None
        self.publish = self._publish
        self.publish_nowait = self._refuse_nowait
        self.publish_many = self._publish_many

    async def open(self) -> None:
        await self.transport.open(LinkRuntime(self.context, self))
        self.committer.start()
        await self._declarations.refresh()
        await self._declarations.flush()

    # Channels

    def declare(self, config: ChannelConfig) -> None:
        check_channel(self.capabilities, config)
        self._declarations.declare(config)
        outlet = self._outlets.get(config.name)
        if outlet is not None:
            outlet.configure(config)

    def channels(self) -> Mapping[str, ChannelConfig]:
        return {name: self._declarations.config(name) for name in sorted(self._declarations.names())}

    def queue_size(self, channel: str) -> int:
        return sum(i.mailbox.depth() for i in self._intakes if matches(i.terms.pattern, channel))

    def channels_changed(self) -> None:
        """The transport's registry has grown."""
        if not self.closing and (self._refreshing is None or self._refreshing.done()):
            self._refreshing = self.context.loop.create_task(self._refresh())

    async def _refresh(self) -> None:
        try:
            await self._declarations.refresh()
        except Exception as error:  # noqa: BLE001 - the next change asks again
            log.warning("the registry of channels could not be read: %r", error)

    # Publishing

    def outlet(self, channel: str) -> Outlet:
        """The publish path of a channel. Raises InvalidChannelName, UnknownChannel."""
        outlet = self._outlets.get(channel)
        if outlet is None:
            validate_channel(channel)
            if not self.context.auto_create and not self._declarations.knows(channel):
                raise UnknownChannel(channel, near_misses(channel, self._declarations.names()))
            outlet = self._outlets[channel] = Outlet(self._publisher, self._declarations.config(channel))
            self._declarations.saw(channel)
        return outlet

    async def _publish(self, channel: str, payload: Any, **options: Any) -> str | None:
        outlet = self.outlet(channel)
        if self._steps is None:
            return await outlet.publish(payload, **options)
        result: str | None = await self._steps(Publication(channel, payload, **options))
        return result

    async def _last(self, publication: Publication) -> str | None:
        return await self.outlet(publication.channel).publish(publication.payload, **publication.options())

    def reshape(self) -> None:
        middleware = self.context.middleware
        self._steps = compose_publish(middleware, self._last) if middleware else None

    def _refuse_nowait(self, channel: str, payload: Any, **options: Any) -> NoReturn:
        raise missing("in_process", "publish_nowait would wait for a store; use publish_threadsafe")

    async def _publish_many(self, items: Iterable[tuple[Any, ...]], /) -> Sequence[str | None]:
        through = None if self._steps is None else self._publish
        return await PublishMany(self.context, self.committer, self.outlet, through)(items)

    def connection(self) -> AbstractAsyncContextManager[Any]:
        return self.transport.connection() if self.capabilities.transactions == "database" else super().connection()

    def transaction(self, connection: Any | None) -> AbstractAsyncContextManager[BusTransaction]:
        if self.capabilities.offers("transactions"):
            return transaction(self, connection)
        return super().transaction(connection)

    async def declared(self) -> None:
        """Returns once the transport knows of all channels that were created."""
        await self._declarations.flush()

    # Subscriptions

    def check(self, terms: Terms) -> None:
        check_subscription(self.capabilities, terms)

    def settlement(self, terms: Terms) -> Settlement:
        return RemoteSettlement(self, terms)

    def attach(self, intake: Intake) -> None:
        self._intakes.append(intake)
        self.context.call_home(self._feed, intake)

    def _feed(self, intake: Intake) -> None:
        group = intake.terms.group
        feeder = self._feeders.get(group)
        if feeder is None:
            feeder = Feeder(self.context, self.transport, self._declarations, group, release=self._release)
            self._feeders[group] = feeder
        feeder.add(intake)

    def _release(self, delivery: Delivery) -> None:
        """It came for nobody."""
        self.committer.submit(Told(_ignore, settlement=Verdict(delivery, Outcome.RELEASE), persistent=True))

    async def attached(self, intake: Intake) -> None:
        await in_loop(self.context.loop, self._attached, intake)

    async def _attached(self, intake: Intake) -> None:
        feeder = self._feeders.get(intake.terms.group)
        if feeder is not None:
            await feeder.ready(intake)

    async def seek(self, intake: Intake, position: Cursor) -> None:
        check_start(self.capabilities, position, f"seeking in {intake.terms.pattern!r}")
        await in_loop(self.context.loop, self._seek, intake, position)

    async def _seek(self, intake: Intake, position: Cursor) -> None:
        await self._feeders[intake.terms.group].seek(intake, position)

    def detach(self, intake: Intake) -> None:
        self.context.call_home(self._starve, intake)

    def _starve(self, intake: Intake) -> None:
        feeder = self._feeders.get(intake.terms.group)
        if feeder is not None:
            feeder.remove(intake)

    async def discard(self, intake: Intake, messages: Sequence[Message]) -> tuple[int, int]:
        settlement = settlement_of(intake)
        left = [*messages, *self.suspects.take_out(settlement)]
        released = await settlement.give_back(left)
        if intake in self._intakes:
            self._intakes.remove(intake)
        return released + settlement.returned, len(left) - released

    # Events of the transport

    def lost(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            delivery.lost = True
        for intake in self._intakes:
            settlement_of(intake).lost(deliveries)

    def revoking(self, deliveries: Sequence[Delivery]) -> None:
        """What no handler has yet goes back now; what is being handled may be settled until the transport takes it."""
        for intake in self._intakes:
            settlement = settlement_of(intake)
            mine = settlement.holding.mine(deliveries)
            for message in [*self.suspects.withdraw(set(mine)), *settlement.withdraw(mine)]:
                settlement.give_back_soon(message)

    # Requests

    async def reply_address(self) -> str:
        if self._inbox is None:
            inbox = await self.transport.inbox()
            self._inbox = ReplyInbox(self.context, inbox, self.replies, self.codec)
        return self._inbox.address

    def send_reply(self, message: Message, payload: Any, error: RequestFailed | None) -> None:
        """Straight to the requester: neither retried nor durable. Raises EncodeError."""
        address = message.reply_to
        assert address is not None
        if error is not None and not address.startswith(INBOX_PREFIX):
            log.warning("the request %s on %s failed for good: %s", message.id, message.channel, error)
            return
        content_type, body = self.codec.encode(b"" if error is not None else payload)
        envelope = Envelope(
            id=self._publisher.next_id(),
            channel=address,
            body=body,
            content_type=content_type,
            priority=message.priority,
            timestamp_ns=self.context.clock.time_ns(),
            headers={} if error is None else failure_headers(error),
            correlation_id=message.correlation_id,
        )
        self.committer.submit(Told(self._replied, publish=envelope))

    def _replied(self, done: Done) -> None:
        if done.published is not PublishStatus.STORED:
            self.context.count("replies_lost")

    # The end

    def outstanding(self, deadline_ns: int) -> int:
        return self.committer.unfinished + sum(self._left_to_handle(intake) for intake in self._intakes)

    def _left_to_handle(self, intake: Intake) -> int:
        settlement = settlement_of(intake)
        return len(settlement.holding) - self.suspects.waiting(settlement)

    def dead_letters(self, channel: str) -> DeadLetters:
        from neuralcore.messaging.dead_letters import DeadLetters

        if not self.capabilities.browse:
            return super().dead_letters(channel)
        dead_letter = self.context.config(channel).dead_letter
        return DeadLetters(self.transport, channel, dead_letter=dead_letter or None)

    async def quiesce(self) -> None:
        self.closing = True
        self.suspects.stop()
        self.committer.hurry()
        for feeder in self._feeders.values():
            feeder.pause()

    async def close(self) -> None:
        for feeder in self._feeders.values():
            await _quietly(feeder.close())
        self._feeders.clear()
        if not await self.committer.flush(_FLUSH):
            log.error("%d settlements could not be confirmed; those messages may come again", self.committer.unfinished)
        if self._inbox is not None:
            await _quietly(self._inbox.close())
        await self.committer.close()
        if self._refreshing is not None:
            self._refreshing.cancel()
        await _quietly(self.transport.close())

    # Watching

    def route_stats(self) -> Mapping[str, RouteStats]:
        return {name: outlet.meter.stats() for name, outlet in list(self._outlets.items())}


def _ignore(done: Done) -> None:
    """Whatever became of it."""


async def _quietly(closing: Awaitable[None]) -> None:
    """One part that cannot be closed must not keep the others open."""
    try:
        await closing
    except Exception as error:  # noqa: BLE001 - the transport may be gone; there is nothing left to do with it
        log.warning("closing a part of the transport failed: %r", error)
