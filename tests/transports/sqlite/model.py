"""The SQLite store under the memory transport's clients: whatever drives the reference in virtual time drives it.

Many clients share one connection, which is one after the other what many processes would do. ``fault`` is called before
every statement and may raise: the transaction is undone, as a crash there would have it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from typing import Any

from neuralcore.messaging.names import INBOX_PREFIX
from neuralcore.testing.memory.leases import Owner
from neuralcore_transports.sqlite.store.fetch import Reader
from neuralcore_transports.sqlite.store.moment import Limits, Moment
from neuralcore_transports.sqlite.store.schema import create
from neuralcore_transports.sqlite.store.store import Store
from neuralcore_transports.sqlite.store.transaction import Book

_NEVER_DUE = Moment(0, 0)
"""When a fetch only looks."""


class Faulty(sqlite3.Connection):
    """Calls ``fault`` before every statement of a write transaction. Closes when it is forgotten."""

    fault: Callable[[str], None] | None = None

    def __del__(self) -> None:
        self.close()

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if self.fault is not None and self.in_transaction:
            self.fault(sql)
        return super().execute(sql, *parameters)

    def executemany(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if self.fault is not None and self.in_transaction:
            self.fault(sql)
        return super().executemany(sql, *parameters)


def connection(path: str = ":memory:", *, new: bool = True) -> Faulty:
    made = sqlite3.connect(
        path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=512, factory=Faulty
    )
    made.execute("PRAGMA synchronous = OFF")
    if new:
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("BEGIN")
        create(made, "boot", 0, 0)
        made.execute("COMMIT")
    return made


class SqliteModel:
    """Has the face of ``MemoryStore``."""

    def __init__(self, *, lease=10.0, max_hold=3600.0, dedup_window=300.0, session_ttl=60.0, inbox_capacity=10_000):
        ns = [round(seconds * 1e9) for seconds in (lease, max_hold, dedup_window, max(session_ttl, lease))]
        self.limits = Limits(
            lease=ns[0], max_hold=ns[1], dedup_window=ns[2], session_ttl=ns[3], inbox_capacity=inbox_capacity
        )
        self.lock = threading.Lock()
        self.connection = connection()
        self.damaged: list[str] = []
        self.store = Store(
            Book(self.connection, level="OFF"), self.limits, tell=lambda channel, what: self.damaged.append(what)
        )
        self._owners: dict[Owner, int] = {}
        self._wakes: list[Callable[[], None]] = []
        self._deliveries: dict[int, Any] = {}
        self._inboxes = 0
        self._beats: dict[int, int] = {}
        self.advanced = Moment(0, 0)

    # Owners

    def connect(self, name, wake=lambda: None):
        owner = Owner(name, wake)
        self._owners[owner] = self.store.connect(name, "boot", Moment(1 << 60, 0))
        return owner

    def disconnect(self, owner, now):
        self.advance(now)
        id = self._owners.pop(owner, None)
        if id is not None:
            self.store.disconnect(id, now)
        self._wake_all()

    def silence(self, owner, now):
        self.advance(now)
        if owner.silent_since is None:
            owner.silent_since = now.mono
            self.store.beat(self._owners[owner], now)
        self._wake_all()

    def resume(self, owner, now):
        self.advance(now)
        owner.silent_since = None
        if owner not in self._owners:
            self._owners[owner] = self.store.connect(owner.name, "boot", now)
        self.advance(now)
        self._wake_all()

    def _wake_all(self):
        for owner in list(self._owners):
            owner.wake()
        for wake in list(self._wakes):
            wake()

    # Steps

    def _stepped(self, result):
        self._wake_all()
        return result

    def declare(self, config, now):
        self.advance(now)
        known = set(self.store.channels())
        self.store.declare(config, now)
        self._tell_channels(known)
        self._wake_all()

    def _tell_channels(self, known):
        if set(self.store.channels()) != known:
            for owner in self._owners:
                owner.channels_changed = True

    def channels(self):
        return self.store.channels()

    def remove(self, target, now):
        self.advance(now)
        self.store.remove(target, now)
        self._take_lost()
        self._wake_all()

    def commit(self, publishes, settlements, now):
        self.advance(now)
        known = set(self.store.channels())
        result = self.store.commit(publishes, settlements, now)
        self._tell_channels(known)
        return self._stepped(result)

    def reader(self, owner, group, wake=lambda: None):
        self._wakes.append(wake)
        made = Reader(self._owners[owner], group)
        made.asked_by = owner
        made.wake = wake
        return made

    def update(self, reader, interests, now):
        self.advance(now)
        reader.owner = self._owners[reader.asked_by]
        self.store.update(reader, interests, now)
        self._wake_all()

    def is_open(self, reader):
        return self.store.fetch(reader, {}, _NEVER_DUE).open

    def fetch(self, reader, demand, now):
        self.advance(now)
        if reader.asked_by not in self._owners:
            return []
        reader.owner = self._owners[reader.asked_by]
        deliveries, again, *_ = self.store.fetch(reader, demand, now)
        while again and not deliveries:
            deliveries, again, *_ = self.store.fetch(reader, demand, now)
        for delivery in deliveries:
            self._deliveries[delivery.lease.number] = (reader.asked_by, delivery)
        return deliveries

    def seek(self, reader, interest, position, now):
        self.advance(now)
        self.store.seek(reader, interest, position, now)
        self._take_lost()
        self._wake_all()

    def close_reader(self, reader, now):
        self.advance(now)
        self.store.close_reader(reader, now)
        if reader.wake in self._wakes:
            self._wakes.remove(reader.wake)

    def open_inbox(self, owner, wake=lambda: None, address=None):
        self._inboxes += 1
        address = address or f"{INBOX_PREFIX}{owner.name}.{self._inboxes}"
        self.store.open_inbox(address, self._owners[owner])
        self._wakes.append(wake)
        return address

    def take_replies(self, address, now):
        self.advance(now)
        return self.store.take_replies(address)

    def close_inbox(self, address):
        self.store.close_inbox(address)

    def browse(self, name, start, limit, now):
        self.advance(now)
        return self.store.browse(name, start, limit, now)

    def stats(self, now):
        self.advance(now)
        self.store.tidy(now, 1000)
        return self.store.stats()

    # Time

    def next_event(self, now):
        due = self.store.fetch(Reader(0, "nobody"), {}, _NEVER_DUE).due
        times = [] if due is None else [due.mono, now.mono + due.wall - now.wall]
        since = self.connection.execute("SELECT min(since) FROM nc_entry WHERE state = 2").fetchone()[0]
        if since is not None:
            times.append(since + self.limits.max_hold)
        for owner in self._owners:
            if owner.silent_since is not None:
                ends = (owner.silent_since + after for after in (self.limits.lease, self.limits.session_ttl))
                times.extend(end for end in ends if end > now.mono)
        soonest = min(times, default=1 << 61)
        return soonest if soonest < 1 << 61 else None

    def advance(self, now):
        """The living beat as often as processes do; nothing more is due at one moment after it was done once."""
        if now == self.advanced:
            return
        self.advanced = now
        for owner, id in self._owners.items():
            if owner.silent_since is None and now.mono - self._beats.get(id, 0) >= self.limits.lease // 4:
                self.store.beat(id, now)
                self._beats[id] = now.mono
        changed = self.store.advance(now)
        for owner in [owner for owner, id in self._owners.items() if not self._known(id)]:
            del self._owners[owner]
        self._take_lost()
        if changed:
            self._wake_all()

    def _known(self, id):
        return self.connection.execute("SELECT 1 FROM nc_owner WHERE id = ?", (id,)).fetchone() is not None

    def _take_lost(self):
        if self.connection.execute("SELECT 1 FROM nc_lost LIMIT 1").fetchone() is None:
            return
        for owner, id in self._owners.items():
            for number in self.store.take_lost(id):
                held = self._deliveries.pop(number, None)
                if held is not None:
                    owner.lost.append(held[1])
                    owner.wake()
