"""The native transport and its link: the bus's own mailboxes, no envelopes, no leases."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn

from neuralcore._core import Mailbox, Message, Route, Router, RouteStats
from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.context import BusContext, log
from neuralcore.messaging.errors import (
    ChannelFull,
    Closed,
    LoopClosed,
    NoSubscribers,
    PriorityOutOfRange,
    PublishManyFailed,
    RequestFailed,
    UnknownChannel,
    Unsupported,
    WouldDeadlock,
)
from neuralcore.messaging.intake import Intake
from neuralcore.messaging.lacking import missing
from neuralcore.messaging.link import Link
from neuralcore.messaging.local_settlement import LocalSettlement
from neuralcore.messaging.middleware import Publication
from neuralcore.messaging.names import INBOX_PREFIX, is_reserved, near_misses, validate_channel
from neuralcore.messaging.paths import Guard, publish_path
from neuralcore.messaging.replies import Replies
from neuralcore.messaging.settle import DeadLetter, Settlement
from neuralcore.messaging.terms import Terms
from neuralcore.messaging.timers import Timers
from neuralcore.messaging.transport import (
    Capabilities,
    CommitResult,
    Consumer,
    Envelope,
    Group,
    Runtime,
    Transport,
)

__all__ = ["LocalLink", "NativeTransport"]


class NativeTransport(Transport):
    """``native://``: declares what the bus's own mailboxes can do. The bus never calls its methods."""

    scheme: ClassVar[str] = "native"
    capabilities = Capabilities(
        in_process=True,
        groups=True,
        shared_work=True,
        broadcast=True,
        priorities=True,
        keys=True,
        delay=True,
        bounded=True,
        request_reply=True,
    )

    @classmethod
    def from_url(cls, url: str) -> NativeTransport:
        if url != "native://":
            raise ValueError(f"{url!r}: the native transport takes no host, path or options; write native://")
        return cls()

    async def open(self, runtime: Runtime) -> None:
        self._misused()

    async def commit(self, publishes: Sequence[Envelope], settlements: Sequence[object] = ()) -> CommitResult:
        self._misused()

    async def consume(self, group: Group) -> Consumer:
        self._misused()

    async def close(self) -> None:
        """Nothing to let go of."""

    def _misused(self) -> NoReturn:
        raise Unsupported("envelopes", (), "native:// is the bus's own mailboxes; use it through a MessageBus")


class LocalLink(Link):
    capabilities = NativeTransport.capabilities

    def __init__(self, context: BusContext, timers: Timers, replies: Replies) -> None:
        super().__init__(context, timers, replies)
        self._router = Router(context.clock, missing=self._missing, error=_error)
        self._internals = Router(context.clock, missing=self._missing, error=_error)
        """The bus's own channels, which the public verbs never see; so that they refuse them always."""
        self._guards: dict[str, Guard] = {}
        self._isolated: frozenset[str] = frozenset()
        self._intakes: list[Intake] = []
        self.address = f"{INBOX_PREFIX}{context.bus_id}"
        self.reshape()

    async def open(self) -> None:
        """Nothing to connect to."""

    # Channels

    def declare(self, config: ChannelConfig) -> None:
        self._refuse_unsupported(config)
        self.context.configs[config.name] = config
        self._guards[config.name] = Guard(config, self.context.clock)
        self._isolated = frozenset(name for name, known in self.context.configs.items() if known.isolate)
        for intake in self._intakes:
            _settlement_of(intake).reshape()
        route = self._router.routes().get(config.name)
        if route is None:
            self._router.add(self._route(config))
        else:
            self._configure(route, config)
        self._expose()

    def channels(self) -> Mapping[str, ChannelConfig]:
        return {name: self.context.config(name) for name in self._routes()}

    def queue_size(self, channel: str) -> int:
        return sum(mailbox.depth() for mailbox in self._table(channel).match(channel))

    def isolated(self) -> frozenset[str]:
        """Channels whose receivers get copies of their own."""
        return self._isolated

    def _refuse_unsupported(self, config: ChannelConfig) -> None:
        for field, capability in (("retention", "retention"), ("dedup_window", "dedup")):
            if getattr(config, field) is not None:
                raise missing(capability, f"channel {config.name!r}")

    def _missing(self, channel: str) -> Route:
        validate_channel(channel)
        if not self.context.auto_create:
            raise UnknownChannel(channel, near_misses(channel, self._router.routes()))
        return self._internal(channel)

    def _internal(self, channel: str) -> Route:
        table = self._table(channel)
        route = table.routes().get(channel)
        if route is None:
            route = self._route(self.context.config(channel))
            table.add(route)
        return route

    def _table(self, name: str) -> Router:
        """Where a channel or a pattern belongs: no wildcard stands for a reserved first token, so none is in both."""
        return self._internals if is_reserved(name) else self._router

    def _routes(self) -> dict[str, Route]:
        return self._router.routes() | self._internals.routes()

    def _route(self, config: ChannelConfig) -> Route:
        route = Route(self._table(config.name), config.name)
        self._configure(route, config)
        return route

    def _configure(self, route: Route, config: ChannelConfig) -> None:
        middleware = () if is_reserved(config.name) else self.context.middleware
        route.configure(
            priority=config.priority,
            ttl_ns=None if config.ttl is None else int(config.ttl * 1e9),
            path=publish_path(config.name, self._enter, self._guard(config), middleware),
        )

    async def _enter(self, publication: Publication) -> str | None:
        """Where a path ends; middleware may have sent it to another channel."""
        route = self._router.routes().get(publication.channel) or self._missing(publication.channel)
        guard = self._guard(self.context.config(publication.channel))
        payload = await guard.admit(publication.payload, publication.content_type)
        return await route.publish(payload, **publication.options())

    def _guard(self, config: ChannelConfig) -> Guard:
        return self._guards.get(config.name) or Guard(config, self.context.clock)

    def reshape(self) -> None:
        for name, route in self._router.routes().items():
            self._configure(route, self.context.config(name))
        self._expose()

    def _expose(self) -> None:
        """The core's own calls, unless something stands between them and the mailboxes that they go past."""
        guarded = any(not guard.idle for guard in self._guards.values())
        shaped = guarded or bool(self.context.middleware)
        self.publish = self._router.publish
        self.publish_nowait = self._publish_nowait if shaped else self._router.publish_nowait
        self.publish_many = self._publish_many if shaped else self._router.publish_many

    def _publish_nowait(self, channel: str, payload: Any, **options: Any) -> str | None:
        if self.context.middleware:
            raise Unsupported("publish_nowait with middleware", (), "middleware may wait; use publish()")
        guard = self._guards.get(channel)
        if guard is not None:
            payload = guard.admit_nowait(payload, options.get("content_type"))
        return self._router.publish_nowait(channel, payload, **options)

    async def _publish_many(self, items: Iterable[tuple[Any, ...]], /) -> Sequence[str | None]:
        results: list[str | None] = []
        errors: dict[int, BaseException] = {}
        for index, item in enumerate(items):
            try:
                results.append(await self._publish_item(*item))
            except Exception as error:  # noqa: BLE001, PERF203 - reported for its item, whatever middleware raised
                results.append(None)
                errors[index] = error
        if errors:
            raise PublishManyFailed(results, errors)
        return results

    def _publish_item(
        self, channel: str, payload: Any, priority: int | None = None, options: Mapping[str, Any] | None = None
    ) -> Awaitable[str | None]:
        return self.publish(channel, payload, priority=priority, **(options or {}))

    # Subscriptions

    def check(self, terms: Terms) -> None:
        if terms.start is not None:
            raise missing("seek_id", "native:// keeps nothing to start from", called="start positions")

    def settlement(self, terms: Terms) -> Settlement:
        return LocalSettlement(self, terms)

    def attach(self, intake: Intake) -> None:
        self._intakes.append(intake)
        pattern = intake.terms.pattern
        self._table(pattern).attach(pattern, intake.mailbox, group=intake.terms.group)

    async def attached(self, intake: Intake) -> None:
        """Attaching fixed it."""

    def detach(self, intake: Intake) -> None:
        pattern = intake.terms.pattern
        self._table(pattern).detach(pattern, intake.mailbox)

    async def discard(self, intake: Intake, messages: Sequence[Message]) -> tuple[int, int]:
        self.forget(intake)
        return 0, len(messages)

    def forget(self, intake: Intake) -> None:
        self.timers.forget(intake.mailbox)
        if intake in self._intakes:
            self._intakes.remove(intake)

    # Requests

    async def reply_address(self) -> str:
        return self.address

    def answer(self, message: Message, payload: Any, error: RequestFailed | None) -> Awaitable[None] | None:
        if message.reply_to == self.address:
            self.replies.resolve(message.correlation_id, payload, error)
            return None
        if error is not None:
            log.warning("the request %s on %s failed for good: %s", message.id, message.channel, error)
            return None
        return self._answer_elsewhere(message, payload)

    async def _answer_elsewhere(self, message: Message, payload: Any) -> None:
        """The publisher named a channel of its own in ``reply_to``."""
        assert message.reply_to is not None
        await self._router.publish(message.reply_to, payload, correlation_id=message.correlation_id)

    async def bury(self, letter: DeadLetter) -> None:
        await self._internal(letter.channel).publish(
            letter.payload,
            priority=letter.priority,
            headers=letter.headers,
            key=letter.key,
            correlation_id=letter.correlation_id,
            content_type=letter.content_type,
            message_id=letter.id,
        )

    # The end

    def outstanding(self, deadline_ns: int) -> int:
        return sum(_outstanding(intake.mailbox, deadline_ns) for intake in self._intakes)

    async def quiesce(self) -> None:
        """What is queued is this process's to handle: draining handles it."""

    def refuse(self) -> None:
        self._router.close()
        self._internals.close()

    async def close(self) -> None:
        for intake in self._intakes:
            intake.mailbox.close()
        self._intakes.clear()

    def route_stats(self) -> Mapping[str, RouteStats]:
        return {name: route.stats() for name, route in self._routes().items()}


def _settlement_of(intake: Intake) -> LocalSettlement:
    settlement = intake.settlement
    assert isinstance(settlement, LocalSettlement), "this link made it"
    return settlement


def _outstanding(mailbox: Mailbox, deadline_ns: int) -> int:
    following = mailbox.promote()
    stats = mailbox.stats()
    in_time = following is not None and following <= deadline_ns
    return stats.queued + stats.parked + stats.in_flight + (stats.delayed if in_time else 0)


def _error(kind: str, channel: str, detail: Any) -> BaseException:
    if kind == "full":
        return ChannelFull(channel, detail)
    if kind == "deadlock":
        return WouldDeadlock(channel, detail)
    if kind == "idempotency":
        return missing("dedup", f"idempotency_key={detail!r} on channel {channel!r}")
    if kind == "no_subscribers":
        return NoSubscribers(channel)
    if kind == "priority":
        return PriorityOutOfRange(detail)
    if kind == "loop_closed":
        return LoopClosed()
    if kind == "many":
        return PublishManyFailed(*detail)
    return Closed()
