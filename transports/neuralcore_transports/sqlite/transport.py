"""The SQLite transport: one client of a store that is a file."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Container, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import ClassVar, TypeVar

from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.errors import Closed, NotStarted
from neuralcore.messaging.forking import NoFork
from neuralcore.messaging.names import INBOX_PREFIX
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
    Transaction,
    Transport,
)
from neuralcore_transports.sqlite.client import StoreClient
from neuralcore_transports.sqlite.clock import StoreClock
from neuralcore_transports.sqlite.connection import Told, answer
from neuralcore_transports.sqlite.consumer import SqliteConsumer, SqliteInbox, Waiting
from neuralcore_transports.sqlite.errors import DiskFull
from neuralcore_transports.sqlite.keeper import Events, Keeper
from neuralcore_transports.sqlite.leases import Leases
from neuralcore_transports.sqlite.liveness import Liveness
from neuralcore_transports.sqlite.opening import network_file_system, prepare
from neuralcore_transports.sqlite.options import SqliteOptions
from neuralcore_transports.sqlite.room import Room
from neuralcore_transports.sqlite.store.fetch import Ask, Fetched
from neuralcore_transports.sqlite.store.moment import Moment
from neuralcore_transports.sqlite.store.store import Store
from neuralcore_transports.sqlite.transaction import OwnConnection, SqliteTransaction, own_connection

__all__ = ["SqliteTransport"]

T = TypeVar("T")

log = logging.getLogger("neuralcore.sqlite")

_MAX_PAYLOAD = 256 * 1024 * 1024
"""Bytes; SQLite's own limit is about four times that for a whole row."""
_FEW = 32
"""Settlements that share a transaction where room is small: each may touch some pages of its own."""

_local: dict[Path, set[SqliteTransport]] = {}
"""Who uses which file in this process: they wake each other."""
_locals = threading.Lock()


class SqliteTransport(Transport):
    """``sqlite:///var/lib/app/bus.db``. Many of them, in many processes of one machine, share one file."""

    scheme: ClassVar[str] = "sqlite"
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
        transactions="database",
        max_payload=_MAX_PAYLOAD,
    )

    def __init__(self, options: SqliteOptions) -> None:
        self.options = options
        self._state = "new"
        self._closing: asyncio.Task[None] | None = None
        self._runtime: Runtime
        self._loop: asyncio.AbstractEventLoop
        self.room = Room(options.path)
        self._clock: StoreClock
        self._client: StoreClient
        self._liveness: Liveness
        self._keeper: Keeper
        self._path: Path
        self.owner = 0
        self.leases: Leases
        self._waiting: set[Waiting] = set()
        self._committing = 0
        self.no_commit = asyncio.Event()
        """Set while none is under way that could hand anything out."""
        self.no_commit.set()

    @classmethod
    def from_url(cls, url: str) -> SqliteTransport:
        """``?durability=full|normal|off``, and in seconds ``lease``, ``max_hold``, ``dedup_window``, ``session_ttl``,
        ``busy``, ``poll``; see SqliteOptions. Raises TransportError.
        """
        return cls(SqliteOptions.from_url(url))

    # Life

    async def open(self, runtime: Runtime) -> None:
        """Raises TransportError."""
        if self._state != "new":
            raise Closed("the SQLite transport")
        self._runtime = runtime
        self._loop = asyncio.get_running_loop()
        self._clock = StoreClock(runtime.clock)
        self._path = self.options.path.resolve()
        await asyncio.to_thread(self._prepare)
        self._client = StoreClient(self.options, self._clock, tell=self._damaged, news=self._wake)
        self._liveness = Liveness(self.options.path)
        try:
            await self._client.open()
            self._state = "open"
            self.leases = Leases(runtime.lost)
            name, boot, hold = runtime.bus_id, self._clock.boot, self._liveness.hold
            self.owner = await self.run(lambda store, now: store.connect(name, boot, now, hold))
            self._keeper = Keeper(
                self.options,
                self._clock,
                self._liveness,
                name,
                self.owner,
                self._client,
                Events(
                    changed=self._from_elsewhere,
                    channels_changed=runtime.channels_changed,
                    lost=lambda numbers: self._call(self.leases.lose, numbers),
                    given_up=lambda owner: self._call(self._given_up, owner),
                    failed=self._keeper_failed,
                ),
            )
            self._keeper.start()
        except BaseException:
            self._state = "closed"
            await self._client.close()
            self._liveness.close()
            raise
        with _locals:
            _local.setdefault(self._path, set()).add(self)

    def _prepare(self) -> None:
        with NoFork():
            broken = prepare(self.options, self._clock)
        if broken:
            self._runtime.count("log_broken")
            log.error(
                "the log of %s breaks off, and the %d commits behind that cannot be read: the file was damaged, or the "
                "power failed (then ?durability=full lost none that was waited for; what was settled last comes again)",
                self.options.path,
                broken,
            )
        kind = network_file_system(self.options.path)
        if kind is not None:
            log.warning(
                "%s is on a network file system (%s): SQLite's log cannot be shared between hosts, and its locks may "
                "not work there; use a local disk, or redis:// or kafka:// for several hosts",
                self.options.path,
                kind,
            )

    async def close(self) -> None:
        if self._closing is None:
            was_open, self._state = self._state == "open", "closed"
            if not was_open:
                return
            self._closing = asyncio.ensure_future(self._shut())
        await asyncio.shield(self._closing)  # whoever is cancelled here leaves no thread and no file behind

    async def _shut(self) -> None:
        with _locals:
            _local[self._path].discard(self)
            if not _local[self._path]:
                del _local[self._path]
        if not self._client.here:
            return
        await asyncio.to_thread(self._keeper.stop)
        try:
            owner = self.owner
            await self._client.run(lambda store, now: store.disconnect(owner, now))
        finally:
            await self._client.close()
            self._liveness.close()
            self.wake_all()

    # The store, from this client

    @property
    def running(self) -> bool:
        return self._state == "open"

    async def run(self, step: Callable[[Store, Moment], T]) -> T:
        """One step of the store, now. Raises NeuralCoreError."""
        self._check_open()
        return await self._client.run(step)

    def post(self, step: Callable[[Store, Moment], T], told: Told[T]) -> None:
        """The same for whoever does not wait; see ``StepConnection.post``."""
        self._check_open()
        self._client.post(step, told)

    def _check_open(self) -> None:
        if self._state != "open":
            raise NotStarted("the SQLite transport") if self._state == "new" else Closed("the SQLite transport")

    def seconds_until(self, due: Moment) -> float:
        """Until either of two times is reached; the wall clock's is looked at again within a second: it may jump."""
        now = self._clock.now()
        return max(0.0, min(due.mono - now.mono, due.wall - now.wall, 1_000_000_000)) / 1e9

    def data_lost(self, channel: str, detail: str) -> None:
        self._runtime.data_lost(channel, detail)

    def attend(self, waiting: Waiting) -> None:
        """It hears whenever there may be something new, or is given it."""
        self._waiting.add(waiting)

    def ignore(self, waiting: Waiting) -> None:
        self._waiting.discard(waiting)

    def _wake(self, but: Container[Waiting] = (), *, replies: bool = True) -> None:
        for waiting in self._waiting:
            if waiting not in but and (replies or not waiting.for_replies):
                waiting.wake()

    def wake_all(self, but: Container[Waiting] = (), *, replies: bool = True) -> None:
        """Everybody on this file in this process; who waits for ``replies`` only if there may be some."""
        with _locals:
            others = [each for each in _local.get(self._path, ()) if each is not self]
        self._wake(but, replies=replies)
        for each in others:
            each._call(partial(each._wake, replies=replies))

    # What the keeper and the store tell, from their threads

    def _call(self, callback: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            log.debug("the loop of a bus on %s is closed", self.options.path)

    def _from_elsewhere(self) -> None:
        self._call(self._wake)

    def _given_up(self, owner: int) -> None:
        """This process stood still for so long that everybody else took it for dead."""
        self.owner = owner
        self._runtime.count("sessions_lost")
        self.leases.lose_all()
        self._wake()

    def _keeper_failed(self, error: Exception) -> None:
        self._runtime.count("upkeep_failed")
        log.warning("looking after %s failed, it is tried again: %r", self.options.path, error)

    def _damaged(self, channel: str, what: str) -> None:
        self._runtime.count("quarantined")
        self._runtime.data_lost(channel, what)

    # The contract

    async def declare(self, channel: ChannelConfig) -> None:
        await self.run(lambda store, now: store.declare(channel, now))

    async def remove(self, target: ChannelRef | GroupRef) -> None:
        await self.run(lambda store, now: store.remove(target, now))
        self.wake_all()

    async def commit(self, publishes: Sequence[Envelope], settlements: Sequence[Settlement] = ()) -> CommitResult:
        if not publishes and all(s.outcome is Outcome.ACK and s.delivery.envelope.key is None for s in settlements):
            result = await self.run(partial(self._settle, settlements))
        else:
            result = await self._commit_and_hand_out(publishes, settlements)
        self._settled(settlements, result.settled)
        return result

    async def _commit_and_hand_out(
        self, publishes: Sequence[Envelope], settlements: Sequence[Settlement]
    ) -> CommitResult:
        """Whoever waits gets what there is by the same transaction, without a way to the store's thread of his own."""
        asking = {waiting: ask for waiting in self._waiting if (ask := waiting.ask()) is not None}
        replies = any(envelope.channel.startswith(INBOX_PREFIX) for envelope in publishes)
        committing: asyncio.Future[CommitResult] = self._loop.create_future()
        self.post(
            partial(self._exchange, publishes, settlements, list(asking.values())),
            partial(self._exchanged, committing, asking, replies),
        )
        self._committing += 1
        self.no_commit.clear()
        for waiting in asking:
            waiting.expect()
        return await committing

    def _exchanged(
        self,
        committing: asyncio.Future[CommitResult],
        asking: Mapping[Waiting, Ask],
        replies: bool,
        done: tuple[CommitResult, list[Fetched]] | None,
        error: BaseException | None,
    ) -> None:
        """What was fetched is handed out, also if nobody waits for the commit any more."""
        self._committing -= 1
        if not self._committing:
            self.no_commit.set()
        result, fetched = done if done is not None else (None, [])
        try:
            for (waiting, ask), each in zip_longest(asking.items(), fetched):
                waiting.hand_over(ask, each)
            if result is not None:
                self.wake_all(asking, replies=replies)
        finally:
            answer(committing, result, error)

    def _settle(self, settlements: Sequence[Settlement], store: Store, now: Moment) -> CommitResult:
        """In parts where room is small: none of them may take so much of it that the log could not be moved."""
        if not self.room.is_small():
            return store.commit((), settlements, now)
        settled: list[SettleStatus] = []
        try:
            for first in range(0, len(settlements), _FEW):
                self.room.await_moving(store.connection)
                settled += store.commit((), settlements[first : first + _FEW], now).settled
        except (sqlite3.Error, DiskFull):
            if not settled:
                raise
            # They are tried again, and that tells what is wrong, if it still is.
            settled += [SettleStatus.UNKNOWN] * (len(settlements) - len(settled))
        return CommitResult((), settled)

    def _exchange(
        self,
        publishes: Sequence[Envelope],
        settlements: Sequence[Settlement],
        asks: Sequence[Ask],
        store: Store,
        now: Moment,
    ) -> tuple[CommitResult, list[Fetched]]:
        if not publishes and self.room.is_small():
            return self._settle(settlements, store, now), []
        self.room.check(publishes, settlements, store.connection)
        return store.exchange(publishes, settlements, asks, now)

    def _settled(self, settlements: Sequence[Settlement], statuses: Sequence[SettleStatus]) -> None:
        for settlement, status in zip(settlements, statuses, strict=True):
            if status not in (SettleStatus.SKIPPED, SettleStatus.UNKNOWN) and settlement.outcome is not Outcome.ATTEMPT:
                self.leases.end(settlement.delivery)

    def connection(self) -> AbstractAsyncContextManager[OwnConnection]:
        """An ``aiosqlite.Connection``; its statements stand each for themselves outside of ``transaction``."""
        return own_connection(self.options)

    def transaction(self, connection: OwnConnection | None) -> AbstractAsyncContextManager[Transaction]:
        """Raises TypeError for a connection that ``connection()`` did not give."""
        if connection is None:
            return self._own_transaction()
        return SqliteTransaction(self, connection, self._clock, self._damaged)

    @asynccontextmanager
    async def _own_transaction(self) -> AsyncIterator[Transaction]:
        async with self.connection() as connection, self.transaction(connection) as transaction:
            yield transaction

    def committed(self, settlements: Sequence[Settlement]) -> None:
        """In an application's own transaction."""
        for settlement in settlements:
            self.leases.end(settlement.delivery)
        self.wake_all()

    async def consume(self, group: Group) -> Consumer:
        return SqliteConsumer(self, group.name)

    async def inbox(self) -> Inbox:
        inbox = SqliteInbox(self, f"_inbox.{self._runtime.bus_id}.{os.urandom(4).hex()}")
        await inbox.open()
        return inbox

    async def browse(self, channel: str, start: Cursor, limit: int) -> Page:
        return await self.run(lambda store, now: store.browse(channel, start, limit, now))

    async def channels(self) -> Sequence[str]:
        return await self.run(lambda store, now: store.channels())

    async def stats(self) -> Mapping[str, StoreStats]:
        return await self.run(lambda store, now: store.stats())

    async def health(self) -> Health:
        try:
            await self.run(lambda store, now: store.channels())
        except Exception as error:  # noqa: BLE001 - whatever it is, that is how it is
            return Health(False, str(error))
        return Health(True)
