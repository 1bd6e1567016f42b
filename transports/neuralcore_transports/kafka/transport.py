"""The Kafka transport: one client of a cluster of brokers."""

from __future__ import annotations

import asyncio
import logging
import os
import zlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, ClassVar, Final, TypeVar

from confluent_kafka import KafkaError

from neuralcore._core import Clock
from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.errors import Closed, NotStarted, Unavailable
from neuralcore.messaging.transport import (
    Capabilities,
    ChannelRef,
    CommitResult,
    Consumer,
    Cursor,
    Delivery,
    Envelope,
    Group,
    GroupRef,
    Health,
    Inbox,
    Page,
    PublishStatus,
    Runtime,
    Settlement,
    SettleStatus,
    StoreStats,
    Transport,
    raise_unsupported,
)
from neuralcore_transports.kafka.administration import Administration
from neuralcore_transports.kafka.broadcast import Broadcasts
from neuralcore_transports.kafka.browser import Browser
from neuralcore_transports.kafka.clients import Clients, log
from neuralcore_transports.kafka.declaring import Declaring
from neuralcore_transports.kafka.errors import KafkaRefused
from neuralcore_transports.kafka.inbox import KafkaInbox
from neuralcore_transports.kafka.making import MAX_PAYLOAD, Making
from neuralcore_transports.kafka.member import Member
from neuralcore_transports.kafka.options import SCHEME, KafkaOptions
from neuralcore_transports.kafka.paging import page
from neuralcore_transports.kafka.positions import Positions
from neuralcore_transports.kafka.publisher import Outgoing, Publisher
from neuralcore_transports.kafka.reader import Reader
from neuralcore_transports.kafka.registrar import Registrar
from neuralcore_transports.kafka.registry import Change, Channel
from neuralcore_transports.kafka.sending import Sending
from neuralcore_transports.kafka.settling import Settling
from neuralcore_transports.kafka.silence import Silence
from neuralcore_transports.kafka.statistics import Statistics
from neuralcore_transports.kafka.together import Job
from neuralcore_transports.kafka.topics import Topics
from neuralcore_transports.kafka.transactions import KafkaTransaction, Publishing, Transacting
from neuralcore_transports.kafka.transactor import Transactor
from neuralcore_transports.kafka.trimming import groups_of
from neuralcore_transports.kafka.upkeep import Upkeep

__all__ = ["KafkaTransport"]

T = TypeVar("T")

_AGAIN: Final = 5.0
"""Seconds to connect again."""


class KafkaTransport(Transport):
    """``kafka://h1,h2/prefix``. Many of them, on many hosts, share one cluster."""

    scheme: ClassVar[str] = SCHEME
    capabilities = Capabilities(
        durable=True,
        multi_process=True,
        groups=True,
        broadcast=True,
        bands=True,
        keys=True,
        delay=True,
        dedup="owner",
        seek_id=True,
        seek_time=True,
        browse=True,
        retention=True,
        request_reply=True,
        transactions="messages",
        max_payload=MAX_PAYLOAD,
    )

    def __init__(self, options: KafkaOptions) -> None:
        self.options = options
        self.topics = Topics(options.prefix)
        self._state = "new"
        self._closing: asyncio.Task[None] | None = None
        self._runtime: Runtime
        self._loop: asyncio.AbstractEventLoop
        self.clients: Clients
        self.publisher: Publisher
        self.reader: Reader
        self.browser: Browser
        self.administration: Administration
        self.registrar: Registrar
        self.making: Making
        self.declaring: Declaring
        self._sending: Sending
        self.positions = Positions(self)
        self.members: set[Member] = set()
        self.broadcasts: set[Broadcasts] = set()
        self._publishing: Publishing
        self._refreshing: asyncio.Handle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.upkeep = Upkeep(self)
        self._settling = Settling(self.upkeep.settled_late)

    @classmethod
    def from_url(cls, url: str) -> KafkaTransport:
        """See KafkaOptions for what a URL may say. Raises TransportError."""
        return cls(KafkaOptions.from_url(url))

    # Life

    async def open(self, runtime: Runtime) -> None:
        """Raises TransportError."""
        if self._state != "new":
            raise Closed("the Kafka transport")
        self._runtime = runtime
        self._loop = asyncio.get_running_loop()
        options = self.options
        name = f"neuralcore-{runtime.bus_id}"
        common: dict[str, Any] = {"timeout": options.timeout, "where": options.shown}
        statistics = Statistics(runtime.count, runtime.gauge, options.statistics)
        self.clients = Clients(options, name, self._told, statistics)
        self.administration = Administration(self.clients.admin, self.clients.onlooker, **common)
        self.browser = Browser(self.clients.browser, self.administration, **common)
        self.making = Making(options, self.topics, self.administration)
        self._sending = Sending(self, f"urn:neuralcore:bus:{runtime.bus_id}")
        self.publisher = Publisher(self.clients, self.call, name=f"kafka producer of {name}", silence=self.silence)
        self._publishing = Publishing(Transacting(self, self.topics.transactions(runtime.bus_id)))
        self.reader = Reader(
            self.clients.reader,
            self.call,
            prefetch=options.prefetch,
            name=f"kafka reader of {name}",
            silence=self.silence("the reader"),
            **common,
        )
        self.registrar = Registrar(
            self.topics,
            self.publisher,
            self.reader,
            self.browser,
            changed=self._registry_changed,
            lost=lambda text: self.data_lost(self.topics.registry, text),
            **common,
        )
        self.declaring = Declaring(
            self.topics,
            self.registrar,
            self.making,
            self.administration,
            self.run,
            changed=self.upkeep.touched,
            lost=self.data_lost,
        )
        self._state = "open"
        try:
            await self.run(self._connect)
            await self.registrar.join()
        except BaseException:
            await self._shut()
            self._state = "closed"
            raise
        self.in_background(self.upkeep.run())

    def _connect(self) -> None:
        """Blocks."""
        try:
            self.publisher.start()
            self.making.registry()
            self.reader.start()
            self.registrar.open()
        finally:
            if self._state == "closed":  # who opened it has given up meanwhile, and closed what was there
                self._end()

    async def close(self) -> None:
        if self._closing is None:
            was_open, self._state = self._state == "open", "closing" if self._state == "open" else "closed"
            if not was_open:
                return
            self._closing = asyncio.ensure_future(self._shut())
        await asyncio.shield(self._closing)

    async def _shut(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*(member.leave() for member in list(self.members)))
        await self._publishing.close()
        self._state = "closed"
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self.publisher.close(self.options.patience)
        self.reader.stop()
        self.browser.close()

    @property
    def running(self) -> bool:
        return self._state in ("open", "closing")

    def _check_open(self) -> None:
        if self._state == "new":
            raise NotStarted("the Kafka transport")
        if self._state != "open":
            raise Closed("the Kafka transport")

    # For its parts

    @property
    def id(self) -> str:
        """Of this client, in its life."""
        return self._runtime.bus_id

    @property
    def clock(self) -> Clock:
        return self._runtime.clock

    def silence(self, name: str) -> Silence:
        """Of a client with this name."""
        patience = self.options.answering + _AGAIN  # one of several brokers may be silent, and another is asked then
        return Silence(f"{name} of {self.options.shown}", self.clients.probe, patience)

    async def run(self, what: Callable[..., T], *arguments: Any) -> T:
        """In a thread: it blocks."""
        return await self._loop.run_in_executor(None, lambda: what(*arguments))

    def call(self, what: Callable[..., object], *arguments: object) -> None:
        """On the loop, from any thread."""
        try:
            self._loop.call_soon_threadsafe(what, *arguments)
        except RuntimeError:
            log.debug("the loop of a bus on %s is closed", self.options.shown)

    def in_background(self, work: Coroutine[Any, Any, Any]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._runtime.count("upkeep_failed")
            log.warning("on %s: %r", self.options.shown, task.exception())

    def count(self, name: str) -> None:
        self._runtime.count(name)

    def lost(self, deliveries: Sequence[Delivery]) -> None:
        self._runtime.lost(deliveries)

    def revoking(self, deliveries: Sequence[Delivery], seconds: float) -> None:
        self._runtime.revoking(deliveries, self.clock.monotonic_ns() + round(seconds * 1e9))

    def data_lost(self, channel: str, detail: str) -> None:
        self._runtime.data_lost(channel, detail)

    def _told(self, error: KafkaError) -> None:
        """By the client library, in whichever thread."""
        self.count("broker_errors")
        level = logging.ERROR if error.fatal() else logging.INFO
        log.log(level, "%s: %s", self.options.shown, error.str())

    # Channels

    def _registry_changed(self, changes: Sequence[Change]) -> None:
        if any(isinstance(change, Channel) for change in changes):
            self._runtime.channels_changed()
        if self._refreshing is None:
            self._refreshing = self._loop.call_soon(self._refresh)
        for member in self.members:
            member.look_at_positions()

    def _refresh(self) -> None:
        """However much has changed just now."""
        self._refreshing = None
        for member in self.members:
            member.refresh()
        for broadcasts in self.broadcasts:
            self.in_background(broadcasts.refresh())

    async def declare(self, channel: ChannelConfig) -> None:
        self._check_open()
        await self.declaring.declare(channel)

    async def remove(self, target: ChannelRef | GroupRef) -> None:
        self._check_open()
        if isinstance(target, GroupRef):
            await self.declaring.forget(target.group, target.channel)
        else:
            await self.declaring.remove(target.channel)

    async def channels(self) -> Sequence[str]:
        self._check_open()
        return sorted(self.registrar.registry.channels)

    # Commits

    async def commit(self, publishes: Sequence[Envelope], settlements: Sequence[Settlement] = ()) -> CommitResult:
        if not self.running:
            self._check_open()
        if not publishes:
            return CommitResult((), await self._settling.settle(settlements))
        if not settlements:
            return await self._publish(publishes)
        at_once = [index for index, each in enumerate(settlements) if each.after is None]
        settling = asyncio.ensure_future(self._settling.settle([settlements[index] for index in at_once]))
        result = await self._publish(publishes)
        published = result.published
        stored = (PublishStatus.STORED, PublishStatus.DUPLICATE)
        later = [i for i, each in enumerate(settlements) if each.after is not None and published[each.after] in stored]
        answers = [*await self._settling.settle([settlements[index] for index in later]), *await settling]
        statuses = dict(zip([*later, *at_once], answers, strict=True))
        settled = [statuses.get(index, SettleStatus.SKIPPED) for index in range(len(settlements))]
        return CommitResult(published, settled, result.reasons)

    async def _publish(self, publishes: Sequence[Envelope]) -> CommitResult:
        published, reasons = await self._sending.publish(publishes)
        self.upkeep.touched(each.channel for each in publishes)
        return CommitResult(published, (), reasons)

    # Transactions

    def transaction(self, connection: Any | None) -> KafkaTransaction:
        """Raises Unsupported for a connection: Kafka has no rows."""
        self._check_open()
        if connection is not None:
            raise_unsupported("transactions with a connection")
        return KafkaTransaction(self)

    async def prepared(self, envelopes: Sequence[Envelope]) -> list[Outgoing]:
        """Raises NeuralCoreError."""
        self.upkeep.touched(each.channel for each in envelopes)
        return await self._sending.prepared(envelopes)

    def together(self, job: Job) -> None:
        """Raises what ``_check_open`` raises when it is over."""
        if not self.running:
            self._check_open()
        if job.settlement is None:
            self.publish_together(job)
        else:
            job.settlement.delivery.lease.partition.owner.together(job)  # type: ignore[attr-defined]

    def publish_together(self, job: Job) -> None:
        self._publishing.together(job)

    def transactor(self, name: str) -> Transactor:
        options = self.options
        return Transactor(
            self.clients,
            self.browser,
            name,
            timeout=options.timeout,
            patience=options.patience,
            where=options.shown,
        )

    # Readers

    async def consume(self, group: Group) -> Consumer:
        self._check_open()
        if group.name is None:
            broadcasts = Broadcasts(self)
            self.broadcasts.add(broadcasts)
            return broadcasts
        member = Member(self, group.name)
        self.members.add(member)
        return member

    async def inbox(self) -> Inbox:
        self._check_open()
        partitions = await self.run(self.making.inboxes)
        name = f"{self._runtime.bus_id}.{os.urandom(4).hex()}"
        inbox = KafkaInbox(self, name, zlib.crc32(name.encode()) % partitions)
        await self.run(inbox.open)
        return inbox

    async def browse(self, channel: str, start: Cursor, limit: int) -> Page:
        self._check_open()
        await self.registrar.refresh()
        known = self.registrar.registry.channels.get(channel)
        if known is None:
            return Page((), None)
        return await self.run(page, self, known, groups_of(self.registrar.registry, [known]), start, limit)

    # Looking after it

    async def stats(self) -> Mapping[str, StoreStats]:
        self._check_open()
        return await self.upkeep.stats()

    async def health(self) -> Health:
        if self._state != "open":
            return Health(False, f"the client is {self._state}")
        try:
            brokers = await self.run(self.administration.check)
        except (Unavailable, KafkaRefused) as error:
            return Health(False, str(error))
        return Health(True, f"{brokers} brokers")
