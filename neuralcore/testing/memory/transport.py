"""The `memory` transport: one client of a store in this process."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, TypeVar
from urllib.parse import parse_qsl, urlsplit

from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.errors import Closed, NotStarted, TransportError, Unavailable
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
    Runtime,
    Settlement,
    StoreStats,
    Transport,
)
from neuralcore.testing.memory.consumer import MemoryConsumer, MemoryInbox
from neuralcore.testing.memory.leases import Owner
from neuralcore.testing.memory.records import Moment
from neuralcore.testing.memory.store import MemoryStore
from neuralcore.testing.memory.wakeup import Wakeup, call_on

__all__ = ["MemoryTransport"]

T = TypeVar("T")

_named: dict[str, MemoryStore] = {}
_naming = threading.Lock()
_OPTIONS = ("lease", "max_hold", "dedup_window", "session_ttl")


class MemoryTransport(Transport):
    """Several of them on one store are as many processes on one broker: each has its leases, and can be killed."""

    scheme: ClassVar[str] = "memory"
    capabilities = Capabilities(
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
    )

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = MemoryStore() if store is None else store
        self._state = "new"
        self._runtime: Runtime
        self._owner: Owner
        self._loop: asyncio.AbstractEventLoop
        self._thread = 0
        self._timer: asyncio.TimerHandle | None = None
        self._due: int | None = None
        self._wakeups: weakref.WeakKeyDictionary[Wakeup, None] = weakref.WeakKeyDictionary()
        """Of fetches that wait; in order, so that runs repeat."""
        self._awake = asyncio.Event()
        self._awake.set()

    @classmethod
    def from_url(cls, url: str) -> MemoryTransport:
        """``memory://`` is a store of its own; ``memory://name`` one that is shared in this process.

        Who makes the store gives its options, in seconds: ``?lease=10&max_hold=3600&dedup_window=300&session_ttl=60``.
        """
        parts = urlsplit(url)
        options = {name: _seconds(name, value) for name, value in parse_qsl(parts.query)}
        with _naming:
            store = _named.get(parts.netloc) or _store(**options)
            if parts.netloc:
                _named[parts.netloc] = store
        return cls(store)

    # Life

    async def open(self, runtime: Runtime) -> None:
        if self._state != "new":
            raise Closed("the memory transport")
        self._runtime = runtime
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        with self.store.lock:
            self._owner = self.store.connect(runtime.bus_id, self._wake)
        self._state = "open"

    async def close(self) -> None:
        if self._state == "open":
            self.run(lambda store, owner, now: store.disconnect(owner, now))
        self._stop("closed")

    def kill(self) -> None:
        """As if this client's process had died: it does nothing more, and its leases run out."""
        if self._state == "open":
            self.run(lambda store, owner, now: store.silence(owner, now))
        self._stop("killed")

    def freeze(self) -> None:
        """As if the process had been stopped: it fetches and commits nothing, and nobody extends its leases."""
        self.run(lambda store, owner, now: store.silence(owner, now))
        self._awake.clear()

    def thaw(self) -> None:
        """The stopped process goes on, and learns what it lost."""
        self._awake.set()
        self.run(lambda store, owner, now: store.resume(owner, now))
        for wakeup in list(self._wakeups):
            wakeup.set()

    def wakeup(self) -> Wakeup:
        """For a new reader, which looks into the store again when the process goes on."""
        wakeup = Wakeup()
        self._wakeups[wakeup] = None
        return wakeup

    async def awake(self) -> None:
        """Wait while it is frozen."""
        await self._awake.wait()

    def _stop(self, state: str) -> None:
        self._state = state
        self._awake.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def running(self) -> bool:
        return self._state == "open"

    # The store, from this client

    def run(self, step: Callable[[MemoryStore, Owner, Moment], T]) -> T:
        """One step of the store, now. Raises Unavailable after ``kill()``."""
        if self._state == "new":
            raise NotStarted("the memory transport")
        if self._state == "closed":
            raise Closed("the memory transport")
        if self._state == "killed":
            raise Unavailable("the memory transport", "this client was killed")
        with self.store.lock:
            now = self._now()
            result = step(self.store, self._owner, now)
            due = self.store.next_event(now)
        if threading.get_ident() == self._thread:
            self._arm(due)
        elif due is not None:
            self._wake()
        return result

    def monotonic_ns(self) -> int:
        clock = self._runtime.clock
        return clock.monotonic_ns()

    def data_lost(self, channel: str, detail: str) -> None:
        self._runtime.data_lost(channel, detail)

    def _now(self) -> Moment:
        clock = self._runtime.clock
        return Moment(clock.monotonic_ns(), clock.time_ns())

    def _wake(self) -> None:
        """From any client of the store, inside its step."""
        call_on(self._loop, self._attend)

    def _attend(self) -> None:
        """Have the store do what is due, and pass its events on."""
        if not self.running or not self._awake.is_set():
            return
        lost, changed = self.run(_take_events)
        if lost:
            self._runtime.lost(lost)
        if changed:
            self._runtime.channels_changed()

    def _arm(self, due: int | None) -> None:
        """Be back when the store's next event is due."""
        if due == self._due:
            return
        self._due = due
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = self._loop.call_later(max(0, due - self.monotonic_ns()) / 1e9, self._fire)

    def _fire(self) -> None:
        self._timer = self._due = None
        self._attend()

    # The contract

    async def declare(self, channel: ChannelConfig) -> None:
        self.run(lambda store, owner, now: store.declare(channel, now))

    async def remove(self, target: ChannelRef | GroupRef) -> None:
        self.run(lambda store, owner, now: store.remove(target, now))

    async def commit(self, publishes: Sequence[Envelope], settlements: Sequence[Settlement] = ()) -> CommitResult:
        await self.awake()
        return self.run(lambda store, owner, now: store.commit(publishes, settlements, now))

    async def consume(self, group: Group) -> Consumer:
        return MemoryConsumer(self, group.name)

    async def inbox(self) -> Inbox:
        return MemoryInbox(self)

    async def browse(self, channel: str, start: Cursor, limit: int) -> Page:
        return self.run(lambda store, owner, now: store.browse(channel, start, limit, now))

    async def channels(self) -> Sequence[str]:
        return self.run(lambda store, owner, now: store.channels())

    async def stats(self) -> Mapping[str, StoreStats]:
        return self.run(lambda store, owner, now: store.stats(now))

    async def health(self) -> Health:
        return Health(self.running, "" if self.running else f"the client is {self._state}")


def _take_events(store: MemoryStore, owner: Owner, now: Moment) -> tuple[list[Delivery], bool]:
    store.advance(now)
    lost, changed = owner.lost, owner.channels_changed
    owner.lost, owner.channels_changed = [], False
    return lost, changed


def _store(
    lease: float = 10.0,
    max_hold: float = 3600.0,
    dedup_window: float = 300.0,
    session_ttl: float = 60.0,
) -> MemoryStore:
    return MemoryStore(lease=lease, max_hold=max_hold, dedup_window=dedup_window, session_ttl=session_ttl)


def _seconds(name: str, value: str) -> float:
    if name not in _OPTIONS:
        raise TransportError(f"memory:// has no option {name!r}; it has {', '.join(_OPTIONS)}")
    try:
        return float(value)
    except ValueError as error:
        raise TransportError(f"memory:// wants seconds for {name!r}; got {value!r}") from error
