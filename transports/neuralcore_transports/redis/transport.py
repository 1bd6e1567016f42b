"""The Redis transport: one client of a server, or of a cluster of them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

import hiredis
import msgspec
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
    Outcome,
    Page,
    Runtime,
    Settlement,
    SettleStatus,
    StoreStats,
    Transport,
)
from neuralcore_transports.redis.bells import Bells
from neuralcore_transports.redis.client import Client, Fetched, Found
from neuralcore_transports.redis.cluster import Cluster
from neuralcore_transports.redis.consumer import RedisConsumer
from neuralcore_transports.redis.deadline import within
from neuralcore_transports.redis.durability import check_durability
from neuralcore_transports.redis.errors import NotOurs, translated
from neuralcore_transports.redis.inbox import RedisInbox
from neuralcore_transports.redis.keeper import Beat, Events, Keeper
from neuralcore_transports.redis.known import Known
from neuralcore_transports.redis.layout import Layout
from neuralcore_transports.redis.leases import Leases, lease_of
from neuralcore_transports.redis.options import RedisOptions
from neuralcore_transports.redis.places import Places
from neuralcore_transports.redis.reclaiming import Reclaiming
from neuralcore_transports.redis.scripts import Dialect
from neuralcore_transports.redis.servers import Servers, Standalone

__all__ = ["RedisTransport"]

log = logging.getLogger("neuralcore.redis")

_FORMAT: Final = "1"
_MAX_PAYLOAD: Final = 256 * 1024 * 1024
"""Bytes; a Redis string may have twice that."""
_UPKEEP: Final = 1.0
_TIDIED: Final = 50
"""Channels that are tidied at a time."""


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
        self._keeper: Keeper
        self._upkeep: asyncio.Task[None]
        self.client: Client
        self.places: Places
        self.reclaiming: Reclaiming
        self.leases: Leases
        self.consumers: set[RedisConsumer] = set()
        self.inboxes: dict[str, RedisInbox] = {}
        self.ended: set[str] = set()
        """Groups of broadcasts that are over: what they had in flight is settled by itself."""
        self._epochs = itertools.count(1)
        self._version: int | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

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
        self._servers = self._made_servers()
        self.leases = Leases(runtime.lost)
        self.client = Client(self.options, self._servers, self._layout, session, Known(self._lost))
        self.places = Places(self.client)
        self.reclaiming = Reclaiming(self.client, self._consumed, self._trimmed)
        self._bells = Bells(
            self._servers,
            (self._layout.bell(session), self._layout.news),
            self._heard,
            self._listening_no_more,
            self._listening_again,
        )
        try:
            await self._servers.open()
            await check_durability(self._servers)
            await self._check_format()
            await self._register()
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
                beat=lambda beat: self._call(self._beat, beat),
                held_too_long=lambda deliveries: self._call(self.leases.lose, deliveries),
                trimmed=lambda base, count: self._call(self._trimmed, base, count),
                failed=self._keeper_failed,
            ),
        )
        self._state = "open"
        self._keeper.start()
        self._upkeep = self._loop.create_task(self._keep_tidy(), name=f"{session} upkeep")

    def _made_servers(self) -> Servers:
        return (Cluster if self.options.cluster else Standalone)(self.options, self._broken)

    async def _check_format(self) -> None:
        try:
            found = await self.client.registry("open", _FORMAT)
        except Unavailable:
            raise
        except TransportError as error:
            if "WRONGTYPE" in str(error):
                raise NotOurs(self.options.shown, self.options.prefix, str(error)) from error
            raise
        if found != _FORMAT.encode():
            raise NotOurs(self.options.shown, self.options.prefix, f"their format is {found!r}, and ours {_FORMAT}")

    async def _register(self) -> None:
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
        for task in self._tasks:
            task.cancel()
        await asyncio.wait({self._upkeep, *self._tasks})
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

    def _consumed(self) -> set[str]:
        """Bases of channels."""
        return {place.base for consumer in self.consumers for place in consumer.places()}

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
            self.spawn(self._tell_unless_removed(channel, incarnation, detail))

    async def _tell_unless_removed(self, channel: str, incarnation: bytes, detail: str) -> None:
        if not await self.client.registry("gone", incarnation):
            self.data_lost(channel, detail)

    def unavailable(self, error: Exception) -> Unavailable:
        return Unavailable("redis", f"{self.options.shown}: {error}")

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do it beside everything else; what goes wrong is logged."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._spawned)

    def _spawned(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed(error)

    def failed(self, error: BaseException) -> None:
        """Something that nobody waits for."""
        self._runtime.count("upkeep_failed")
        log.warning("something beside the work failed, on Redis at %s: %r", self.options.shown, error)

    # What is heard

    def _heard(self, kind: str, rest: bytes) -> None:
        if kind in ("given", "answer"):  # where it cannot be read, the connection breaks, and what it was goes back
            reader = hiredis.Reader()
            reader.feed(rest)
            (self._given if kind == "given" else self._answered)(*reader.gets())
            return
        lines = rest.decode(errors="replace").split("\n")
        try:
            self._told(kind, lines)
        except (ValueError, TypeError) as error:  # anybody may publish on these topics
            log.warning("on Redis at %s somebody says %r, which is no news: %s", self.options.shown, lines, error)

    def _told(self, kind: str, lines: Sequence[str]) -> None:
        if kind == "ready":
            base, group = lines
            known = [consumer for consumer in self.consumers if consumer.heard(base, group)]
            if not known and self.running:
                self.spawn(self.client.channel("ring", base, group))
        elif kind == "taken":
            self._taken(*lines)
        elif kind == "reply" and lines[0] in self.inboxes:
            self.inboxes[lines[0]].wake()
        elif kind == "channels":
            self._channels_changed(int(lines[0]), lines[1:])

    def _answered(self, base: bytes, priority: int, fields: list[bytes]) -> None:
        inbox = self.inboxes.get(base.decode())
        if inbox is not None:
            inbox.told(priority, fields)

    def _given(
        self, base: bytes, group: bytes, consumer: bytes, turn: int, due: int, lost: list[int], found: list[list[Any]]
    ) -> None:
        """Messages that were handed out as they were stored."""
        names = base.decode(), group.decode(), consumer.decode()
        recreated, trimmed = lost
        fetched = Fetched(
            [Found(*each) for each in found],
            None if due < 0 else due / 1000,
            recreated=recreated,
            trimmed=trimmed,
            turn=turn,
        )
        known = [each for each in self.consumers if each.given(*names, fetched)]
        if not known and self.running:
            self.spawn(self.recover(*names))

    async def recover(self, base: str, group: str, consumer: str) -> None:
        """Give back what that consumer was handed and does not know of."""
        leases = [lease for each in self.leases.of(base, group) if (lease := lease_of(each)) is not None]
        known = [lease.entry for lease in leases if lease.consumer == consumer]
        await self.client.channel("recover", base, group, consumer, *known)

    @property
    def listening(self) -> bool:
        """Whether it hears what it is handed unasked."""
        return self._bells.up

    def _listening_no_more(self) -> None:
        """What was on its way is lost."""
        for consumer in self.consumers:
            for place in consumer.places():
                place.rename(self.consumer_name())
            consumer.look_again()

    def _listening_again(self) -> None:
        """What was said meanwhile was not heard."""
        self._runtime.reconnected()
        for consumer in self.consumers:
            consumer.look_again(channels=True)
        for inbox in self.inboxes.values():
            inbox.wake()
        for base, group in self.leases.places():
            self._taken(base, group)

    def _taken(self, base: str, group: str) -> None:
        for consumer in self.consumers:
            for place in consumer.places():
                if (place.base, place.group) == (base, group):
                    place.rename(self.consumer_name())
        self.spawn(self._find_lost(base, group))

    async def _find_lost(self, base: str, group: str) -> None:
        held = [
            (delivery, lease) for delivery in self.leases.of(base, group) if (lease := lease_of(delivery)) is not None
        ]
        if not held or group in self.ended:
            return
        asked: list[str | int] = []
        for _, lease in held:
            asked += (lease.consumer, lease.priority, lease.entry)
        reply = await self.client.channel("owned", base, group, *asked)
        owned = reply[1] if reply[0] == b"ok" else [0] * len(held)
        self.leases.lose(delivery for (delivery, _), mine in zip(held, owned, strict=True) if not mine)

    def _channels_changed(self, version: int, came: Sequence[str] = ()) -> None:
        """``came``: all that is new in that version, where it is known."""
        before, self._version = self._version, version
        if version == before:
            return
        for consumer in self.consumers:
            if came and before == version - 1:
                consumer.channels_came(came)
            else:
                consumer.look_again(channels=True)
        if before is not None:
            self._runtime.channels_changed()

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

    def _beat(self, beat: Beat) -> None:
        if self._state != "open":
            return
        self._channels_changed(beat.version)
        if not beat.known:
            self.spawn(self._forgotten())
        for session, late in beat.overdue.items():
            if session != self.client.session:
                ended = late > max(self.options.session_ttl, self.options.lease)
                self.spawn(self.reclaiming.reclaim(session, ended=ended))

    async def _forgotten(self) -> None:
        """The server takes this client for dead, or has lost what it knew."""
        self._runtime.count("sessions_lost")
        await self._register()
        for consumer in list(self.consumers):
            await consumer.rejoin()
            consumer.look_again(channels=True)
        for base, group in self.leases.places():
            self._taken(base, group)

    async def _keep_tidy(self) -> None:
        """Some of its channels every second: what retention no longer keeps."""
        turn = 0
        while True:
            await asyncio.sleep(_UPKEEP)
            bases = list(
                dict.fromkeys(
                    [self._layout.base(channel) for channel in self.client.configs]
                    + [place.base for consumer in self.consumers for place in consumer.places()]
                )
            )
            some = [bases[(turn + n) % len(bases)] for n in range(min(_TIDIED, len(bases)))]
            turn += len(some)
            try:
                for base in some:
                    await self._tidy(base)
            except TransportError as error:
                self._runtime.count("upkeep_failed")
                log.debug("tidying up on Redis at %s failed, it is tried again: %s", self.options.shown, error)

    async def _tidy(self, base: str) -> None:
        while True:
            reply = await self.client.channel("tidy", base)
            if reply[0] != b"ok":
                return
            if not reply[1]:
                await self._end_strays(base, set(reply[2]))
                return

    async def _end_strays(self, base: str, sessions: set[bytes]) -> None:
        """Broadcasts of clients that ended while the channel was made. A client registers before it subscribes."""
        if sessions - {self.client.session.encode()}:
            for session in sessions - set(await self.client.registry("sessions")):
                await self.reclaiming.take_over(base, session.decode(), ended=True)

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
                self.spawn(self._tidy(base))

    async def commit(self, publishes: Sequence[Envelope], settlements: Sequence[Settlement] = ()) -> CommitResult:
        self._check_open()
        result = await self.client.commit(publishes, settlements, lambda each: self.leases.holds(each.delivery))
        settled = [self._settled(each, status) for each, status in zip(settlements, result.settled, strict=True)]
        return CommitResult(result.published, settled, result.reasons)

    def _settled(self, settlement: Settlement, status: SettleStatus) -> SettleStatus:
        delivery = settlement.delivery
        lease = lease_of(delivery)
        if status is SettleStatus.SKIPPED:
            return status
        if settlement.outcome is Outcome.ATTEMPT and status is SettleStatus.SETTLED and lease is not None:
            delivery.lease = msgspec.structs.replace(lease, tried=True)
            return status
        if lease is not None and lease.group in self.ended and self.leases.holds(delivery):
            status = SettleStatus.SETTLED
        self.leases.end(delivery)
        return status

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
