"""The Redis transport: one client of a server, or of a cluster of them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, ClassVar, Final

from redis.exceptions import RedisError

from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.errors import Closed, NotStarted, TransportError, Unavailable
from neuralcore.messaging.transport import (
    Capabilities,
    ChannelRef,
    CommitResult,
    Consumer,
    Cursor,
    Envelope,
    Group,
    GroupRef,
    Health,
    Inbox,
    Page,
    Runtime,
    Settlement,
    StoreStats,
    Transport,
)
from neuralcore_transports.redis.background import Background
from neuralcore_transports.redis.bells import Bells
from neuralcore_transports.redis.client import Client
from neuralcore_transports.redis.cluster import Cluster
from neuralcore_transports.redis.consumer import RedisConsumer
from neuralcore_transports.redis.deadline import within
from neuralcore_transports.redis.durability import check_durability, check_eviction
from neuralcore_transports.redis.errors import translated
from neuralcore_transports.redis.format import check_format
from neuralcore_transports.redis.inbox import RedisInbox
from neuralcore_transports.redis.keeper import Events, Keeper
from neuralcore_transports.redis.known import Known
from neuralcore_transports.redis.layout import Layout
from neuralcore_transports.redis.leases import Leases, lease_of
from neuralcore_transports.redis.news import News
from neuralcore_transports.redis.options import RedisOptions
from neuralcore_transports.redis.places import Places
from neuralcore_transports.redis.reclaiming import Reclaiming
from neuralcore_transports.redis.scripts import Dialect
from neuralcore_transports.redis.servers import Servers, Standalone
from neuralcore_transports.redis.tidying import Tidying

__all__ = ["RedisTransport"]

log = logging.getLogger("neuralcore.redis")

_MAX_PAYLOAD: Final = 256 * 1024 * 1024
"""Bytes; a Redis string may have twice that."""


class RedisTransport(Transport):
    """``redis://host:6379/0``. Many of them, on many hosts, share one server."""

    scheme: ClassVar[str] = "redis"
    capabilities = Capabilities(
        durable=True,
        multi_process=True,
        groups=True,
        shared_work=True,
        broadcast=True,
        priorities=True,
        keys=True,
        delay=True,
        dedup="store",
        seek_id=True,
        seek_time=True,
        browse=True,
        atomic_commit=True,
        bounded=True,
        retention=True,
        request_reply=True,
        max_payload=_MAX_PAYLOAD,
    )

    def __init__(self, options: RedisOptions) -> None:
        self.options = options
        if options.cluster:  # what is in one slot is: a channel with its dead letters
            self.capabilities = replace(self.capabilities, atomic_commit=False)
        self._state = "new"
        self._closing: asyncio.Task[None] | None = None
        self._runtime: Runtime
        self._loop: asyncio.AbstractEventLoop
        self._layout = Layout(options.prefix)
        self._servers: Servers
        self._bells: Bells
        self._news: News
        self._tidying: Tidying
        self._keeper: Keeper
        self._upkeep: asyncio.Task[None]
        self.background: Background
        self.client: Client
        self.places: Places
        self.reclaiming: Reclaiming
        self.leases: Leases
        self.consumers: set[RedisConsumer] = set()
        self.inboxes: dict[str, RedisInbox] = {}
        self._epochs = itertools.count(1)

    @classmethod
    def from_url(cls, url: str) -> RedisTransport:
        """See RedisOptions for what may follow the ``?``. Raises TransportError."""
        return cls(RedisOptions.from_url(url))

    # Life

    async def open(self, runtime: Runtime) -> None:
        """Raises TransportError."""
        if self._state != "new":
            raise Closed("the Redis transport")
        self._runtime = runtime
        self._loop = asyncio.get_running_loop()
        session = f"{runtime.bus_id}-{os.urandom(4).hex()}"
        self.background = Background(runtime, self.options.shown)
        self._servers = self._made_servers()
        self.leases = Leases(runtime.lost)
        self.client = Client(self.options, self._servers, self._layout, session, Known(self._lost))
        self.places = Places(self.client)
        self.reclaiming = Reclaiming(self.client, self._consumed, self._trimmed)
        self._tidying = Tidying(self.client, self.reclaiming, runtime, self._consumed)
        self._news = News(self, runtime)
        self._bells = Bells(
            self._servers,
            (self._layout.bell(session), self._layout.news),
            self._news.heard,
            self._news.bells_down,
            self._news.bells_back,
        )
        try:
            await self._servers.open()
            await check_durability(self._servers)
            await check_eviction(self._servers)
            await check_format(self.client)
            await self.register()
            try:
                await self._bells.open()
            except (RedisError, OSError, asyncio.TimeoutError) as error:
                raise translated(error, self.options.shown) from error
        except BaseException:
            self._state = "closed"
            await self._bells.close()
            await self._servers.close()
            raise
        self._keeper = Keeper(
            self.options,
            self._layout,
            session,
            Dialect.of(self._servers.version(), cluster=self.options.cluster),
            self.leases,
            Events(
                beat=lambda beat: self._call(self._news.beat, beat),
                held_too_long=lambda deliveries: self._call(self.leases.lose, deliveries),
                trimmed=lambda base, count: self._call(self._trimmed, base, count),
                failed=self._keeper_failed,
            ),
        )
        self._state = "open"
        self._keeper.start()
        self._upkeep = self._loop.create_task(self._tidying.keep(), name=f"{session} upkeep")

    def _made_servers(self) -> Servers:
        return (Cluster if self.options.cluster else Standalone)(self.options, self._broken)

    async def register(self) -> None:
        await self.client.registry("beat", self.client.session, round(self.options.lease * 1000), 1)

    async def close(self) -> None:
        if self._closing is None:
            was_open, self._state = self._state == "open", "closed"
            if not was_open:
                return
            self._closing = asyncio.ensure_future(self._shut())
        await asyncio.shield(self._closing)  # whoever is cancelled here leaves no thread and no connection behind

    async def _shut(self) -> None:
        self._upkeep.cancel()
        await self.background.close()
        await asyncio.wait({self._upkeep})
        await asyncio.to_thread(self._keeper.stop)
        await self._bells.close()
        try:
            await within(self.options.timeout, self._leave())
        except (TransportError, RedisError, OSError, asyncio.TimeoutError) as error:
            log.warning("Redis at %s was not told that this client leaves: %s", self.options.shown, error)
        finally:
            await self._servers.close()

    async def _leave(self) -> None:
        """Everything that it has in flight goes back untouched."""
        held = {
            (lease.base, lease.group, lease.consumer) for d in self.leases.all() if (lease := lease_of(d)) is not None
        }
        places = [place for consumer in self.consumers for place in consumer.places()]
        held |= {(place.base, place.group, name) for place in places for name in (place.consumer, *place.broken)}
        await asyncio.gather(*(self.client.channel("recover", base, group, consumer) for base, group, consumer in held))
        for consumer in self.consumers:
            await consumer.end()
        for inbox in list(self.inboxes.values()):
            await inbox.forget()
        await self.client.registry("end", self.client.session)

    @property
    def running(self) -> bool:
        return self._state == "open"

    def _check_open(self) -> None:
        if self._state != "open":
            raise NotStarted("the Redis transport") if self._state == "new" else Closed("the Redis transport")

    def _consumed(self) -> Set[str]:
        """Bases of channels, always in the same order."""
        return dict.fromkeys(place.base for consumer in self.consumers for place in consumer.places()).keys()

    # For its consumers

    def consumer_name(self) -> str:
        """A new one: nobody has lost a lease under it."""
        return f"{self.client.session}.{next(self._epochs)}"

    def data_lost(self, channel: str, detail: str) -> None:
        self._runtime.data_lost(channel, detail)

    def trimmed(self, channel: str, count: int) -> None:
        """Somebody has trimmed a stream, or deleted entries."""
        self._runtime.count("trimmed", count)
        self.data_lost(channel, f"somebody else has deleted {count} messages that a group had not settled")

    def _trimmed(self, base: str, count: int) -> None:
        self.trimmed(self._layout.channel(base), count)

    def _lost(self, channel: str, incarnation: bytes | None, detail: str) -> None:
        if incarnation is None:
            self.data_lost(channel, detail)
        else:
            self.background.spawn(self._tell_unless_removed(channel, incarnation, detail))

    async def _tell_unless_removed(self, channel: str, incarnation: bytes, detail: str) -> None:
        if not await self.client.registry("gone", incarnation):
            self.data_lost(channel, detail)

    def unavailable(self, error: Exception) -> Unavailable:
        return Unavailable("redis", f"{self.options.shown}: {error}")

    async def recover(self, base: str, group: str, consumer: str) -> None:
        """Give back what that consumer was handed and does not know of."""
        leases = [lease for each in self.leases.of(base, group) if (lease := lease_of(each)) is not None]
        known = [lease.entry for lease in leases if lease.consumer == consumer]
        await self.client.channel("recover", base, group, consumer, *known)

    @property
    def listening(self) -> bool:
        """Whether it hears what it is handed unasked."""
        return self._bells.up

    def _broken(self, error: Exception) -> None:
        if self._state == "open":
            self._runtime.count("connections_lost")
            log.debug("a connection to Redis at %s is gone: %s", self.options.shown, error)

    # What the keeper tells

    def _call(self, callback: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            log.debug("the loop of a bus on Redis at %s is closed", self.options.shown)

    def _keeper_failed(self, error: Exception) -> None:
        self._runtime.count("upkeep_failed")
        log.warning("Redis at %s was not told that this client lives, it is tried again: %r", self.options.shown, error)

    # The contract

    async def declare(self, channel: ChannelConfig) -> None:
        self._check_open()
        await self.client.ensure(channel.name, channel)

    async def remove(self, target: ChannelRef | GroupRef) -> None:
        self._check_open()
        if isinstance(target, ChannelRef):
            base = self._layout.base(target.channel)
            reply = await self.client.channel("remove", base)
            self.client.known.forget(target.channel)
            await self.client.registry("drop", target.channel, reply[1] if reply[0] == b"ok" else "")
            self.client.configs.pop(target.channel, None)
            return
        names = [name.decode() for name in await self.client.registry("forget", target.group, target.channel or "")]
        for channel in names if target.channel is None else [target.channel]:
            base = self._layout.base(channel)
            reply = await self.client.channel("leave", base, target.group)
            if reply[0] == b"ok" and reply[1]:
                self.background.spawn(self._tidying.tidy(base))

    async def commit(self, publishes: Sequence[Envelope], settlements: Sequence[Settlement] = ()) -> CommitResult:
        self._check_open()
        result = await self.client.commit(publishes, settlements, lambda each: self.leases.holds(each.delivery))
        settled = [self.leases.settle(each, status) for each, status in zip(settlements, result.settled, strict=True)]
        return CommitResult(result.published, settled, result.reasons)

    async def consume(self, group: Group) -> Consumer:
        self._check_open()
        return RedisConsumer(self, group.name)

    async def inbox(self) -> Inbox:
        self._check_open()
        inbox = RedisInbox(self, f"_inbox.{self.client.session}.{os.urandom(4).hex()}")
        await inbox.open()
        self.inboxes[inbox.base] = inbox
        self._keeper.inboxes = tuple(self.inboxes)
        return inbox

    async def browse(self, channel: str, start: Cursor, limit: int) -> Page:
        self._check_open()
        return await self.places.browse(channel, start, limit)

    async def channels(self) -> Sequence[str]:
        self._check_open()
        return await self.client.channels()

    async def stats(self) -> Mapping[str, StoreStats]:
        self._check_open()
        channels = await self.client.channels()
        replies = await asyncio.gather(*(self.client.channel("stats", self._layout.base(each)) for each in channels))
        return {channel: _stats(reply) for channel, reply in zip(channels, replies, strict=True) if reply[0] == b"ok"}

    async def health(self) -> Health:
        if self._state != "open":
            return Health(False, f"the client is {self._state}")
        try:
            await self.client.call(f"{self._layout.registry}:channels", "PING")
        except TransportError as error:
            return Health(False, str(error))
        return Health(True)


def _stats(reply: Sequence[Any]) -> StoreStats:
    depth, stored, rejected, _trimmed, *groups = reply[1:]
    lag = {
        name.decode(): unsettled
        for name, session, unsettled in zip(groups[::4], groups[1::4], groups[2::4], strict=True)
        if not session
    }
    return StoreStats(depth=depth, in_flight=sum(groups[3::4]), stored=stored, lag=lag, rejected_settlements=rejected)
