"""The message bus: one API, and the transport is a URL."""

from __future__ import annotations

import asyncio
import random
import secrets
import weakref
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload

from neuralcore._core import Clock, Message
from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.checks import check_seconds, check_text
from neuralcore.messaging.closing import CloseReport, Closing
from neuralcore.messaging.context import BusContext, handling
from neuralcore.messaging.errors import (
    BusError,
    ChannelFull,
    Closed,
    RequestError,
)
from neuralcore.messaging.forking import tell_after_fork
from neuralcore.messaging.handler import compile_handler
from neuralcore.messaging.intakes import Intakes
from neuralcore.messaging.life import Life
from neuralcore.messaging.link import Link
from neuralcore.messaging.linking import link_for
from neuralcore.messaging.metrics import BusMetrics, ChannelMetrics
from neuralcore.messaging.middleware import Middleware, check_middleware
from neuralcore.messaging.names import validate_channel
from neuralcore.messaging.publishing import Publish, PublishMany, PublishNowait
from neuralcore.messaging.replies import Replies
from neuralcore.messaging.retry import RetryPolicy
from neuralcore.messaging.running import run
from neuralcore.messaging.stream import Stream
from neuralcore.messaging.subscription import Subscription, check_member
from neuralcore.messaging.subscriptions import Subscriptions
from neuralcore.messaging.terms import Terms
from neuralcore.messaging.threads import Threads
from neuralcore.messaging.timers import Timers
from neuralcore.messaging.transport import Cursor, Transport

if TYPE_CHECKING:
    from neuralcore._native import Overflow
    from neuralcore.messaging.dead_letters import DeadLetters
    from neuralcore.messaging.remote.transactions import BusTransaction

__all__ = ["MessageBus"]


class MessageBus:
    """Publishes messages to channels and hands them to handlers.

    >>> async with MessageBus() as bus:
    ...     bus.subscribe("greeting", print)
    ...     await bus.publish("greeting", "hello")

    Subscriptions may be made before it starts. It belongs to the loop that starts it; other loops and threads may
    publish and subscribe too.
    """

    publish: Publish
    """``await publish(channel, payload, *, priority=, headers=, key=, ttl=, …)``: the message's id, or None when an
    overflow policy dropped it. Waits for room where the policy is ``block``. Raises PublishError, InvalidChannelName,
    UnknownChannel, NotStarted, Closed."""
    publish_nowait: PublishNowait
    """The same without waiting, from any thread; ChannelFull where ``publish`` would wait. In process only."""
    publish_many: PublishMany
    """``await publish_many([(channel, payload[, priority[, options]]), …])``: one id per item. An item that fails does
    not stop the others; PublishManyFailed says which."""

    def __init__(
        self,
        transport: str | Transport = "native://",
        *,
        clock: Clock | None = None,
        capacity: int = 1000,
        overflow: Overflow = "block",
        retry: RetryPolicy | None = None,
        auto_create: bool = True,
        executor_threads: int | None = None,
        rng: random.Random | None = None,
        name: str = "neuralcore",
    ) -> None:
        """``capacity``, ``overflow`` and ``retry`` hold where a channel or a subscription says nothing else.

        ``clock`` and ``rng`` are for tests. ``executor_threads`` bounds the pool that plain functions run in. Raises
        TypeError and ValueError for options that cannot be, UnknownScheme, MissingExtra, TransportError.
        """
        check_text("name", name)
        self.name = name
        self._threads = Threads(executor_threads, name=name)
        self._context = BusContext(
            bus_id=secrets.token_hex(8),
            clock=Clock() if clock is None else clock,
            rng=random.Random() if rng is None else rng,
            executor=self._threads.executor,
            capacity=capacity,
            overflow=overflow,
            retry=RetryPolicy() if retry is None else retry,
            auto_create=auto_create,
        )
        self._life = Life(self._context)
        self._timers = Timers(self._context)
        self._replies = Replies(self._context)
        self._link: Link = link_for(transport, self._context, self._timers, self._replies)
        self._intakes = Intakes(self._context, self._link)
        self._subscriptions = Subscriptions(self._context, self._life, self._link, self._intakes)
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()
        self._address = ""
        self._mandatory = self._link.capabilities.in_process
        """Whether a request that nobody listens for is refused at once."""
        self._starting = asyncio.Lock()
        self._closing: asyncio.Task[CloseReport] | None = None
        self._hurried = False
        self._expose()

    # Life

    async def start(self) -> None:
        """Connect, and let subscriptions made so far begin. Raises Closed, Unavailable, Unsupported.

        One that fails, or is cancelled, closes the bus: what had begun is ended, and a new bus is needed.
        """
        async with self._starting:
            self._life.check_usable()
            if self._life.stage == "running":
                return
            self._context.bind(asyncio.get_running_loop())
            try:
                await self._begin()
            except BaseException:
                await self._begin_closing(drain=False, timeout=0.0)
                raise

    async def _begin(self) -> None:
        await self._link.open()
        self._address = await self._link.reply_address() if self._link.capabilities.request_reply else ""
        self._life.check_usable()  # it may have been closed meanwhile
        tell_after_fork(self)
        self._subscriptions.begin()  # before anybody may publish: in process, what nobody listens for is gone
        self._become("running")
        self._subscriptions.begin()  # what another thread has subscribed meanwhile
        await self._subscriptions.all_ready()

    async def close(self, *, drain: bool = True, timeout: float = 10.0) -> CloseReport:
        """Refuse new publishers, finish what is in flight (and in process what is queued) within ``timeout`` seconds,
        give back the rest. Handlers that still run may publish and reply. Harmless when repeated. Raises LoopClosed;
        TypeError and ValueError for what is no time-out.
        """
        check_seconds("timeout", timeout)
        if self._life.stage == "forked":  # whatever there is to close is the parent's
            return CloseReport(drained=True, handled=0, released=0, abandoned=0)
        if self._closing is None and self._life.stage in ("new", "closed"):
            self._become("closed")
            self._threads.close()
            return CloseReport(drained=True, handled=0, released=0, abandoned=0)
        home = self._context.loop
        if asyncio.get_running_loop() is not home:
            closing = asyncio.run_coroutine_threadsafe(self.close(drain=drain, timeout=timeout), home)
            return await asyncio.wrap_future(closing)
        self._refuse_inside_handler()
        return await self._begin_closing(drain=drain, timeout=timeout)

    async def _begin_closing(self, *, drain: bool, timeout: float) -> CloseReport:
        if self._closing is None:
            self._become("closing")
            shutting = self._shut(drain, timeout)
            self._closing = self._context.loop.create_task(shutting, name=f"{self.name} closing")
        return await asyncio.shield(self._closing)

    async def __aenter__(self) -> MessageBus:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<MessageBus {self.name!r} {self._life.stage}>"

    def run(self, *, timeout: float = 10.0) -> CloseReport:
        """The main of a program: start, work until SIGINT or SIGTERM, drain for up to ``timeout`` seconds, close."""
        check_seconds("timeout", timeout)
        return run(self, timeout=timeout)

    # Channels

    def create_channel(self, name: str | ChannelConfig, **fields: Any) -> ChannelConfig:
        """Make a channel known, or change it live: ``create_channel("jobs", ttl=60.0, overflow="drop_old")``."""
        config = name if isinstance(name, ChannelConfig) else ChannelConfig(name, **fields)
        if isinstance(name, ChannelConfig) and fields:
            raise TypeError("give either a ChannelConfig or a name with fields, not both")
        self._life.check_usable()
        validate_channel(config.name)
        isolated = self._context.config(config.name).isolate
        self._link.declare(config)
        self._intakes.reconfigure(config.name)
        self._expose()
        if config.isolate != isolated:
            self._subscriptions.recompile()
        return config

    def channels(self) -> Mapping[str, ChannelConfig]:
        """Every channel that was created or used."""
        return self._link.channels()

    def queue_size(self, channel: str) -> int:
        """Messages that wait, in this process, in the mailboxes that this channel's messages enter.

        Raises InvalidChannelName, UnknownChannel.
        """
        self._context.check_loop()
        validate_channel(channel, internal=True)
        self._link.check_known(channel)
        return self._link.queue_size(channel)

    def use(self, middleware: Middleware) -> None:
        """Put code around every publish and every handler call from now on. The first one given is the outermost."""
        self._life.check_usable()
        check_middleware(middleware)
        self._context.middleware = (*self._context.middleware, middleware)
        self._link.reshape()
        self._expose()
        self._subscriptions.recompile()

    # Subscribing

    @overload
    def subscribe(
        self,
        pattern: str,
        handler: Callable[..., Any],
        *,
        group: str | None = ...,
        broadcast: bool = ...,
        concurrency: int = ...,
        capacity: int | None = ...,
        overflow: Overflow | None = ...,
        filter: Callable[[Message], bool] | None = ...,
        retry: RetryPolicy | None = ...,
        timeout: float | None = ...,
        batch: int = ...,
        blocking: bool | None = ...,
        hold_keys: bool = ...,
        start: Cursor | None = ...,
        dead_letter: str | Literal[False] | None = ...,
        expired: Literal["count", "dead_letter"] = ...,
        name: str | None = ...,
    ) -> Subscription: ...

    @overload
    def subscribe(
        self,
        pattern: str,
        handler: None = None,
        *,
        group: str | None = ...,
        broadcast: bool = ...,
        concurrency: int = ...,
        capacity: int | None = ...,
        overflow: Overflow | None = ...,
        filter: Callable[[Message], bool] | None = ...,
        retry: RetryPolicy | None = ...,
        timeout: float | None = ...,
        batch: int = ...,
        blocking: bool | None = ...,
        hold_keys: bool = ...,
        start: Cursor | None = ...,
        dead_letter: str | Literal[False] | None = ...,
        expired: Literal["count", "dead_letter"] = ...,
        name: str | None = ...,
    ) -> Callable[[Callable[..., Any]], Subscription]: ...

    def subscribe(
        self,
        pattern: str,
        handler: Callable[..., Any] | None = None,
        *,
        group: str | None = None,
        broadcast: bool = False,
        concurrency: int = 1,
        capacity: int | None = None,
        overflow: Overflow | None = None,
        filter: Callable[[Message], bool] | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        batch: int = 0,
        blocking: bool | None = None,
        hold_keys: bool = True,
        start: Cursor | None = None,
        dead_letter: str | Literal[False] | None = None,
        expired: Literal["count", "dead_letter"] = "count",
        name: str | None = None,
    ) -> Subscription | Callable[[Callable[..., Any]], Subscription]:
        """Have a handler called for every message of a channel or pattern; without a handler, a decorator.

        ``group``: its members share the messages. ``broadcast``: this subscription gets every message while it lives.
        ``concurrency`` messages are handled at once. ``capacity`` and ``overflow`` bound its mailbox. ``filter``
        refuses (and acks) messages. ``timeout`` (seconds) cancels a handler and counts a failed attempt. ``batch``: the
        handler gets lists of up to so many messages. ``blocking=False`` runs a plain function on the loop instead of in
        a thread. ``hold_keys=False`` lets a key's later messages pass one that waits for its retry. ``dead_letter``
        names the channel for what fails for good (False: none). Raises BadHandler, InvalidChannelName, Unsupported,
        Closed, LoopClosed; UnknownChannel with ``auto_create=False``, when the bus starts or has started; TypeError
        and ValueError for options that cannot be.
        """
        terms = self._terms(
            pattern,
            group=group,
            broadcast=broadcast,
            capacity=capacity,
            overflow=overflow,
            filter=filter,
            retry=self._context.retry if retry is None else retry,
            hold_keys=hold_keys,
            start=start,
            dead_letter=dead_letter,
            expired=expired,
        )
        check_member(concurrency=concurrency, batch=batch, timeout=timeout, blocking=blocking, name=name)

        def subscribe(function: Callable[..., Any]) -> Subscription:
            target = function.__wrapped__ if isinstance(function, Subscription) else function

            def failed(message: Message, error: Exception) -> Awaitable[None] | None:
                return subscription.settlement.failed(message, error)

            compiled = compile_handler(
                target,
                batch=batch,
                blocking=blocking,
                filter=filter,
                run_blocking=self._threads.call,
                failed=failed,
            )
            subscription = Subscription(
                self._subscriptions,
                terms,
                target,
                compiled,
                concurrency=concurrency,
                batch=batch,
                timeout=timeout,
                name=name or compiled.name,
            )
            self._subscriptions.register(subscription)
            return subscription

        return subscribe if handler is None else subscribe(handler)

    def stream(
        self,
        pattern: str,
        *,
        group: str | None = None,
        broadcast: bool = False,
        capacity: int | None = None,
        overflow: Overflow | None = None,
        retry: RetryPolicy | None = None,
        hold_keys: bool = True,
        start: Cursor | None = None,
        dead_letter: str | Literal[False] | None = None,
        expired: Literal["count", "dead_letter"] = "count",
        name: str | None = None,
    ) -> Stream:
        """Pull messages instead of being called, and settle each: ``async for message in bus.stream("jobs")``."""
        self._life.check_running()
        terms = self._terms(
            pattern,
            group=group,
            broadcast=broadcast,
            capacity=capacity,
            overflow=overflow,
            filter=None,
            retry=self._context.retry if retry is None else retry,
            hold_keys=hold_keys,
            start=start,
            dead_letter=dead_letter,
            expired=expired,
        )
        self._link.check_terms_known(terms)
        stream = Stream(
            self._intakes.open_stream(terms),
            name or f"stream of {pattern}",
            context=self._context,
            end=self._intakes.end_stream,
        )
        self._streams.add(stream)
        return stream

    def _terms(self, pattern: str, **wanted: Any) -> Terms:
        self._life.check_usable()
        terms = Terms(pattern=pattern, **wanted)
        self._link.check(terms)
        return terms

    # Requests

    async def request(
        self,
        channel: str,
        payload: Any,
        *,
        timeout: float = 30.0,
        priority: int | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        ttl: float | None = None,
    ) -> Any:
        """Publish, and wait up to ``timeout`` seconds for the reply; its payload.

        Raises RequestTimeout, RequestFailed (the responder raised, and will not retry), NoSubscribers (in process),
        ChannelFull, RequestError (middleware, or an overflow policy, dropped it).
        """
        self._life.check_publishing()
        replies = self._replies
        correlation_id, reply, deadlines = replies.expect(channel, timeout)
        try:
            published = await self.publish(
                channel,
                payload,
                correlation_id=correlation_id,
                reply_to=self._address,
                mandatory=self._mandatory,
                priority=priority,
                headers=headers,
                key=key,
                ttl=ttl,
            )
            if published is None:
                raise self._dropped(channel)
            replies.published(correlation_id)
            return await reply
        except BaseException:
            replies.interrupted(correlation_id, reply)
            raise
        finally:
            replies.forget(correlation_id, deadlines)

    def _dropped(self, channel: str) -> Exception:
        if not self._context.middleware:
            return ChannelFull(channel)
        return RequestError(
            f"the request on {channel!r} was dropped on its way, by middleware or by the overflow policy of a full "
            "mailbox, so nobody will answer it"
        )

    def publish_threadsafe(self, channel: str, payload: Any, **options: Any) -> Future[str | None]:
        """``publish`` from any thread and any loop; its options, and a future of its result.

        Waiting for that future on the bus's own loop would wait for itself. So would a plain handler that waits, in its
        thread, for room in the full mailbox that it drains: unlike ``publish``, this cannot tell (WouldDeadlock). Give
        ``result()`` a time-out there, or use ``publish_nowait``.
        """
        self._life.check_publishing()
        home = self._context.loop

        async def publish() -> str | None:
            return await self.publish(channel, payload, **options)

        return asyncio.run_coroutine_threadsafe(publish(), home)

    # Transactions

    def connection(self) -> AbstractAsyncContextManager[Any]:
        """``async with bus.connection() as db``: a connection to the store's own database, for the application's rows.

        On ``sqlite://`` an ``aiosqlite.Connection``. Raises Unsupported, NotStarted.
        """
        self._life.check_running()
        return self._link.connection()

    def transaction(self, connection: Any | None = None) -> AbstractAsyncContextManager[BusTransaction]:
        """``async with bus.transaction() as tx``: all that is published by ``tx.publish`` is there when the block ends,
        or nothing of it when it raises.

        With a connection that ``bus.connection()`` gave, what is done on it happens together with that. On ``sqlite://``
        it holds the store's only write lock: keep it short, and publish nothing past it meanwhile. Raises Unsupported,
        NotStarted; at its end NotStored when it could not be committed, and TransactionUnknown when nobody can tell.
        """
        self._life.check_running()
        return self._link.transaction(connection)

    # Watching

    def dead_letters(self, channel: str) -> DeadLetters:
        """What failed for good on a channel: list it, replay it, discard it. On transports that can be browsed."""
        self._life.check_running()
        return self._link.dead_letters(channel)

    def metrics(self) -> BusMetrics:
        """A picture of all counters, now."""
        channels = {name: ChannelMetrics.of(stats) for name, stats in self._link.route_stats().items()}
        counters = dict(self._context.counters)
        return BusMetrics(
            channels=channels,
            subscriptions=self._intakes.metrics(),
            late_replies=counters.pop("late_replies", 0),
            transport=counters,
            transport_state=dict(self._context.gauges),
        )

    # How it works inside

    def forked(self) -> None:
        if self._life.stage in ("running", "closing"):
            self._become("forked")

    def _become(self, stage: Literal["running", "closing", "closed", "forked"]) -> None:
        self._life.stage = stage
        self._expose()

    def _expose(self) -> None:
        """Publishing is the link's own calls while running, so that nothing is asked per message."""
        if self._life.stage == "running":
            self.publish = self._link.publish
            self.publish_nowait = self._link.publish_nowait
            self.publish_many = self._link.publish_many
        else:
            self.publish = partial(self._publish_if_allowed, "publish")
            self.publish_nowait = partial(self._publish_if_allowed, "publish_nowait")
            self.publish_many = partial(self._publish_if_allowed, "publish_many")

    def _publish_if_allowed(self, method: str, *args: Any, **options: Any) -> Any:
        """What ``publish`` is while the bus does not run. Whoever took it before the start may go on using it."""
        if self._life.stage == "closing" and handling.get() is not self._context:
            raise Closed
        self._life.check_publishing()
        return getattr(self._link, method)(*args, **options)

    def _refuse_inside_handler(self) -> None:
        task = asyncio.current_task()
        if any(workers.owns(task) for workers in self._subscriptions.workers()):
            raise BusError("close() inside a handler would wait for itself: start it as a task of its own")

    def hurry(self) -> None:
        """Cut a drain that is running short."""
        self._hurried = True

    async def _shut(self, wait: bool, timeout: float) -> CloseReport:
        closing = Closing(self._context, self._link, self._intakes, hurried=lambda: self._hurried)
        report = await closing.run(self._subscriptions.workers, self._streams, timeout=timeout if wait else None)
        self._replies.close(Closed())
        self._timers.close()
        await self._link.close()
        self._become("closed")
        self._threads.close()
        return report
