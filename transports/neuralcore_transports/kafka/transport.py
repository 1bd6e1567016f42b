"""The Kafka transport: one client of a cluster of brokers."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, TypeVar

from confluent_kafka import KafkaError
from msgspec import structs

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
from neuralcore_transports.kafka.registry import Change, Channel, Forgotten, Removed
from neuralcore_transports.kafka.sending import Sending
from neuralcore_transports.kafka.statistics import Statistics
from neuralcore_transports.kafka.together import Job
from neuralcore_transports.kafka.topics import Topics
from neuralcore_transports.kafka.transactions import KafkaTransaction, Publishing, Transacting
from neuralcore_transports.kafka.transactor import Transactor
from neuralcore_transports.kafka.trimming import Groups, Progress

__all__ = ["KafkaTransport"]

T = TypeVar("T")


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
        self._sending: Sending
        self.positions = Positions(self)
        self.members: set[Member] = set()
        self.broadcasts: set[Broadcasts] = set()
        self._publishing: Publishing
        self._ensuring = asyncio.Lock()
        self._refreshing: asyncio.Handle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._touched: set[str] = set()
        """Channels of which there may be something to delete."""
        self._rejected: Counter[str] = Counter()

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
        self.publisher = Publisher(self.clients, self.call, name=f"kafka producer of {name}")
        self._publishing = Publishing(Transacting(self, self.topics.transactions(runtime.bus_id)))
        self.reader = Reader(
            self.clients.reader, self.call, prefetch=options.prefetch, name=f"kafka reader of {name}", **common
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
        self._state = "open"
        try:
            await self.run(self._connect)
            await self.registrar.refresh()
        except BaseException:
            await self._shut()
            self._state = "closed"
            raise
        self.in_background(self._upkeep())

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
        await self._make([channel])

    async def ensure(self, names: Collection[str]) -> None:
        """These channels are there. Raises TransportError."""
        channels = self.registrar.registry.channels
        if all(name in channels for name in names):
            return
        async with self._ensuring:  # who comes next finds them there
            await self._make([ChannelConfig(name) for name in names if name not in channels], implied=True)

    async def _make(self, configs: Sequence[ChannelConfig], *, implied: bool = False) -> None:
        known = self.registrar.registry.channels
        asked = [(config, known.get(config.name)) for config in configs]
        wanted = await self.run(partial(self.making.channels, asked, implied=implied))
        changed = [channel for channel in wanted if channel != known.get(channel.channel)]
        await self.registrar.append(*changed)
        self._touched.update(channel.channel for channel in changed)

    async def count_partitions(self, names: Collection[str]) -> None:
        """If somebody else has added some to the topics of these channels, the registry says so from now on."""
        known = [self.registrar.topics_of(name) for name in names if name in self.registrar.registry.channels]
        there = await self.run(self.administration.partitions, [topic for _, topics in known for topic in topics])
        counted = [(channel, min(there.get(topic, 0) for topic in topics)) for channel, topics in known]
        await self.registrar.append(
            *(structs.replace(channel, partitions=count) for channel, count in counted if count > channel.partitions)
        )

    async def look_for(self, names: Iterable[str]) -> None:
        """Publishes to these channels were not answered: perhaps somebody has deleted their topics."""
        known = [name for name in names if name in self.registrar.registry.channels]
        topics = {name: self.registrar.topics_of(name)[1] for name in known}
        there = await self.run(self.administration.partitions, [topic for each in topics.values() for topic in each])
        await self.make_again([name for name in known if any(topic not in there for topic in topics[name])])

    async def make_again(self, names: Sequence[str]) -> None:
        """Somebody has deleted their topics."""
        for name in names:
            self.data_lost(name, "its topic was deleted, with what was in it; it is made again")
        await self._make([ChannelConfig(name) for name in names], implied=True)

    async def remove(self, target: ChannelRef | GroupRef) -> None:
        self._check_open()
        await self.registrar.refresh()
        if isinstance(target, GroupRef):
            await self.registrar.append(Forgotten(target.group, target.channel))
            if target.channel is None:
                await self.run(self.administration.forget, self.topics.group(target.group))
            return
        if target.channel in self.registrar.registry.channels:
            _, topics = self.registrar.topics_of(target.channel)
            await self.registrar.append(Removed(target.channel))
            await self.run(self.administration.remove, topics)

    async def channels(self) -> Sequence[str]:
        self._check_open()
        return sorted(self.registrar.registry.channels)

    # Commits

    async def commit(self, publishes: Sequence[Envelope], settlements: Sequence[Settlement] = ()) -> CommitResult:
        if not self.running:
            self._check_open()
        if not publishes:
            return CommitResult((), await self._settle(settlements))
        if not settlements:
            return await self._publish(publishes)
        at_once = [index for index, each in enumerate(settlements) if each.after is None]
        settling = asyncio.ensure_future(self._settle([settlements[index] for index in at_once]))
        result = await self._publish(publishes)
        published = result.published
        stored = (PublishStatus.STORED, PublishStatus.DUPLICATE)
        later = [i for i, each in enumerate(settlements) if each.after is not None and published[each.after] in stored]
        answers = [*await self._settle([settlements[index] for index in later]), *await settling]
        statuses = dict(zip([*later, *at_once], answers, strict=True))
        settled = [statuses.get(index, SettleStatus.SKIPPED) for index in range(len(settlements))]
        return CommitResult(published, settled, result.reasons)

    async def _publish(self, publishes: Sequence[Envelope]) -> CommitResult:
        published, reasons = await self._sending.publish(publishes)
        self._touched.update(each.channel for each in publishes)
        return CommitResult(published, (), reasons)

    async def _settle(self, settlements: Sequence[Settlement]) -> Sequence[SettleStatus]:
        """By those whose deliveries they are; mostly that is one."""
        owners = [each.delivery.lease.partition.owner for each in settlements]  # type: ignore[attr-defined]
        if len(set(owners)) == 1:
            return self._counted(settlements, await owners[0].settle(settlements))
        statuses = [SettleStatus.UNKNOWN] * len(settlements)

        async def settle(owner: Member | Broadcasts) -> None:
            its = [index for index, each in enumerate(owners) if each is owner]
            for index, status in zip(its, await owner.settle([settlements[i] for i in its]), strict=True):
                statuses[index] = status

        await asyncio.gather(*map(settle, set(owners)))
        return self._counted(settlements, statuses)

    def _counted(self, settlements: Sequence[Settlement], statuses: Sequence[SettleStatus]) -> Sequence[SettleStatus]:
        if SettleStatus.LEASE_LOST in statuses:
            self._rejected.update(
                settlement.delivery.envelope.channel
                for settlement, status in zip(settlements, statuses, strict=True)
                if status is SettleStatus.LEASE_LOST
            )
        return statuses

    # Transactions

    def transaction(self, connection: Any | None) -> KafkaTransaction:
        """Raises Unsupported for a connection: Kafka has no rows."""
        self._check_open()
        if connection is not None:
            raise_unsupported("transactions with a connection")
        return KafkaTransaction(self)

    async def prepared(self, envelopes: Sequence[Envelope]) -> list[Outgoing]:
        """Raises NeuralCoreError."""
        self._touched.update(each.channel for each in envelopes)
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
        return await self.run(page, self, known, self._groups([known]), start, limit)

    def _groups(self, channels: Sequence[Channel]) -> Groups:
        """As of now: other threads look into it, while the registry goes on changing."""
        return {channel.channel: self.registrar.registry.positions(channel.channel) for channel in channels}

    # Looking after it

    async def stats(self) -> Mapping[str, StoreStats]:
        self._check_open()
        await self.registrar.refresh()
        channels = list(self.registrar.registry.channels.values())
        progress = await self.run(Progress, self, channels, self._groups(channels))
        in_flight: dict[str, int] = {}
        for member in self.members:
            for name, count in member.in_flight.items():
                in_flight[name] = in_flight.get(name, 0) + count
        found = {}
        for channel in channels:
            name = channel.channel
            lag = progress.lag(name)
            found[name] = StoreStats(
                depth=max(lag.values(), default=progress.stored(name)),
                in_flight=in_flight.get(name, 0),
                stored=progress.stored(name),
                lag=lag,
                rejected_settlements=self._rejected[name],
            )
        return found

    async def health(self) -> Health:
        if self._state != "open":
            return Health(False, f"the client is {self._state}")
        try:
            brokers = await self.run(self.administration.check)
        except (Unavailable, KafkaRefused) as error:
            return Health(False, str(error))
        return Health(True, f"{brokers} brokers")

    async def _upkeep(self) -> None:
        while self.options.trim:
            await asyncio.sleep(self.options.upkeep * (0.75 + 0.5 * random.random()))  # not all clients at once
            touched, self._touched = self._touched, set()
            for member in self.members:
                touched.update(partition.channel for partition in member.owned if partition.window.position)
            try:
                await self._trim(touched)
            except Exception as error:  # noqa: BLE001 - it is tried again, whatever it was
                self._touched |= touched
                self.count("upkeep_failed")
                log.warning("what nobody needs could not be deleted, it is tried again: %s", error)

    async def _trim(self, names: Collection[str]) -> None:
        if not names:
            return
        await self.registrar.refresh()  # a group that has just come may want what nobody else does
        channels = [found for name in names if (found := self.registrar.registry.channels.get(name)) is not None]
        await self.run(self._delete, channels, self._groups(channels))
        self._touched.update(channel.channel for channel in channels if channel.kept)  # time alone ends that

    def _delete(self, channels: Sequence[Channel], groups: Groups) -> None:
        """Blocks."""
        progress = Progress(self, channels, groups)
        wall_ms = self.clock.time_ns() // 1_000_000
        trims = {place: offset for each in channels for place, offset in progress.trims(each, wall_ms).items()}
        if trims:
            self.administration.delete_before(trims)
