"""The store: every step that a client can take, each one transaction.

It has no clock, no loop and no thread: every call brings its moment, and a simulation may drive it directly. One store
belongs to one connection; many of them, in many processes, share one file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.names import INBOX_PREFIX
from neuralcore.messaging.transport import (
    ChannelRef,
    CommitResult,
    Cursor,
    Demand,
    Envelope,
    GroupRef,
    Interest,
    Outcome,
    Page,
    Settlement,
    StoreStats,
)
from neuralcore_transports.sqlite.errors import SQL_ERRORS
from neuralcore_transports.sqlite.store import looking
from neuralcore_transports.sqlite.store.entries import Entries
from neuralcore_transports.sqlite.store.fetch import Ask, Fetched, Fetcher, Reader
from neuralcore_transports.sqlite.store.fresh import Fresh
from neuralcore_transports.sqlite.store.inboxes import Inboxes
from neuralcore_transports.sqlite.store.messages import BESIDE, Messages
from neuralcore_transports.sqlite.store.moment import Limits, Moment
from neuralcore_transports.sqlite.store.owners import Owners
from neuralcore_transports.sqlite.store.publish import Publisher
from neuralcore_transports.sqlite.store.quarantine import Quarantine
from neuralcore_transports.sqlite.store.seen import Seen
from neuralcore_transports.sqlite.store.settle import Settler
from neuralcore_transports.sqlite.store.subscribers import Subscribers
from neuralcore_transports.sqlite.store.transaction import Book, is_busy
from neuralcore_transports.sqlite.store.upkeep import Upkeep

__all__ = ["Store"]

_DUE: Final = 2_000
"""Delayed entries that one fetch lets go at most."""


class Store:
    def __init__(self, book: Book, limits: Limits, *, tell: Callable[[str, str], None] = lambda channel, what: None):
        """``tell`` hears of messages that were damaged, by channel."""
        self._book = book
        self._messages = Messages(book)
        self._entries = Entries(book, self._messages)
        self._seen = Seen(book, limits)
        self._subscribers = Subscribers(book, self._messages, self._entries, self._seen)
        self._inboxes = Inboxes(book, limits.inbox_capacity)
        self._fresh = Fresh(book)
        self._publisher = Publisher(
            book, self._messages, self._entries, self._subscribers, self._seen, self._inboxes, self._fresh
        )
        self._settler = Settler(book, self._messages, self._entries, self._subscribers)
        self._owners = Owners(book, self._messages, self._entries, self._subscribers, self._inboxes, limits)
        quarantine = Quarantine(book, self._messages, self._entries, tell)
        self._fetcher = Fetcher(book, self._entries, self._owners, quarantine, self._fresh)
        self._upkeep = Upkeep(book, self._messages, self._seen)

    @property
    def connection(self) -> sqlite3.Connection:
        return self._book.connection

    @contextmanager
    def _step(self, *, durable: bool = False) -> Iterator[None]:
        try:
            with self._book.write(durable=durable):
                yield
                self._messages.write_counts()
        finally:
            self._forget()

    def _forget(self) -> None:
        """What the transaction has left in memory, done or undone."""
        self._messages.forget_counts()
        self._publisher.forget()
        self._fresh.end()
        self._settler.forget()

    # Owners

    def connect(self, name: str, boot: str, now: Moment, hold: Callable[[int], object] = lambda id: None) -> int:
        """``hold`` is called with the owner's number before anybody else can see it."""
        with self._step():
            id = self._owners.connect(name, boot, now)
            hold(id)
            return id

    def beat(
        self, owner: int, now: Moment, also: Callable[[sqlite3.Connection], object] = lambda connection: None
    ) -> bool:
        """Extend the leases of an owner; False when it was given up, and has to connect again."""
        with self._step():
            also(self._book.connection)
            return self._owners.beat(owner, now)

    def disconnect(self, owner: int, now: Moment) -> None:
        """A clean end: what it has leased goes back untouched."""
        with self._step():
            self._owners.leave(owner, now)

    def others(self, owner: int) -> list[tuple[int, str]]:
        """Everybody else who has not left, with their boots."""
        with self._book.read():
            return self._owners.others(owner)

    def give_up(self, owner: int, now: Moment) -> None:
        """It is known to be dead."""
        with self._step():
            self._owners.give_up(owner, now)

    def overdue(self, now: Moment) -> bool:
        """Whether a lease has run out that nobody has taken yet."""
        with self._book.read():
            return self._owners.overdue(now)

    def advance(self, now: Moment) -> bool:
        """Do what has become due: let delayed messages go, take what was held too long or by somebody who fell silent.

        Whether there was anything.
        """
        with self._step():
            due = self._entries.make_due(now, _DUE)
            return self._owners.expire(now) or due > 0

    def take_lost(self, owner: int) -> list[int]:
        """The numbers of leases that ended against their owner's will, once."""
        with self._step():
            return self._owners.take_lost(owner)

    # Channels

    def declare(self, config: ChannelConfig, now: Moment) -> None:
        with self._step(durable=True):
            if config.name in self._book.registry.channels:
                self._subscribers.configure(config, now)
            else:
                self._subscribers.create(config, now)

    def channels(self) -> list[str]:
        with self._book.read():
            return list(self._book.registry.channels)

    def remove(self, target: ChannelRef | GroupRef, now: Moment) -> None:
        with self._step(durable=True):
            if isinstance(target, ChannelRef):
                self._subscribers.remove_channel(target.channel, now)
            else:
                self._subscribers.remove_group(target.group, target.channel, now)

    # Publishing and settling

    def commit(self, publishes: Sequence[Envelope], settlements: Sequence[Settlement], now: Moment) -> CommitResult:
        return self.exchange(publishes, settlements, (), now)[0]

    def exchange(
        self, publishes: Sequence[Envelope], settlements: Sequence[Settlement], asks: Sequence[Ask], now: Moment
    ) -> tuple[CommitResult, list[Fetched]]:
        """Commit, and hand out what there is then, all of it in one transaction; a settlement ``after`` a publish that
        was not stored is skipped.

        On disk when it returns, if it stored a message or an attempt. What only settles is written, and on disk with
        the next one: a power cut may have it delivered again, never lost.
        """
        durable = any(not envelope.channel.startswith(INBOX_PREFIX) for envelope in publishes) or any(
            settlement.outcome is Outcome.ATTEMPT for settlement in settlements
        )
        try:
            with self._step(durable=durable):
                result = self._add(publishes, settlements, now)
                return result, [self._hand_out(*ask, now) for ask in asks]
        except SQL_ERRORS as error:
            if not asks or is_busy(error):
                raise
        # What cannot be read is for the readers to hear of, when they fetch: nobody else is to suffer for it.
        return self.exchange(publishes, settlements, (), now)

    def joined(self, publishes: Sequence[Envelope], settlements: Sequence[Settlement], now: Moment) -> CommitResult:
        """The same inside a transaction that the caller has begun for writing, and will end."""
        try:
            with self._book.joined():
                result = self._add(publishes, settlements, now)
                self._messages.write_counts()
                return result
        finally:
            self._forget()

    def _add(self, publishes: Sequence[Envelope], settlements: Sequence[Settlement], now: Moment) -> CommitResult:
        published, reasons = self._publisher.publish(publishes, now)
        settled = self._settler.settle(settlements, published, now)
        for name in {envelope.channel for envelope in publishes}:
            channel = self._book.registry.channels.get(name)
            if channel is not None and channel.config.retention is not None:
                self._messages.trim(channel, now, len(publishes) + BESIDE)
        return CommitResult(published, settled, reasons)

    # Consuming

    def update(self, reader: Reader, interests: Sequence[Interest], now: Moment) -> None:
        """Raises ValueError for a start that cannot be found, and NotStored; nothing is changed then."""
        with self._step(durable=reader.group is not None):
            if reader.group is None and interests:
                self._owners.must_live(reader.owner)
            subscribers = self._subscribers.update(reader.group, reader.owner, interests, reader.subscribers, now)
            for subscriber in set(reader.subscribers.values()) - set(subscribers.values()):
                if reader.group is None:
                    self._subscribers.end(subscriber, now)
        reader.set(interests, subscribers)

    def fetch(self, reader: Reader, demand: Mapping[int, Demand], now: Moment) -> Fetched:
        """Nothing is written when there is nothing. It relies on nothing that was found out before."""
        self._book.doubt()
        with self._book.read():
            due = self._entries.next_due()
            if not _reached(due, now) and not self._fetcher.anything(reader, demand):
                return Fetched([], False, due, reader.is_open(self._book.registry))
        with self._step():
            return self._hand_out(reader, demand, now)

    def _hand_out(self, reader: Reader, demand: Mapping[int, Demand], now: Moment) -> Fetched:
        due = self._entries.next_due()
        if _reached(due, now):
            self._entries.make_due(now, _DUE)
            due = self._entries.next_due()
        deliveries, again = self._fetcher.fetch(reader, demand, now)
        return Fetched(deliveries, again, due, reader.is_open(self._book.registry))

    def seek(self, reader: Reader, interest: int, position: Cursor, now: Moment) -> None:
        """Every message from there on again, as if new; those in flight are lost to their owners."""
        with self._step(durable=True):
            subscriber = reader.subscriber(interest, self._book.registry)
            self._subscribers.seek(subscriber, reader.interests[interest].pattern, position, now)

    def close_reader(self, reader: Reader, now: Moment) -> None:
        if reader.interests:
            self.update(reader, (), now)

    # Replies

    def open_inbox(self, address: str, owner: int) -> None:
        """Raises NotStored."""
        with self._step():
            self._owners.must_live(owner)
            self._inboxes.open(address, owner)

    def take_replies(self, address: str) -> list[Envelope] | None:
        """None when the inbox was closed, or forgotten with its silent owner."""
        with self._book.read():
            if not self._inboxes.anything(address):
                return []
        with self._step():
            return self._inboxes.take(address)

    def close_inbox(self, address: str) -> None:
        with self._step():
            self._inboxes.close(address)

    # Looking in

    def browse(self, name: str, start: Cursor, limit: int, now: Moment) -> Page:
        with self._book.read():
            return looking.browse(self._book, self._seen, name, start, limit, now)

    def stats(self) -> Mapping[str, StoreStats]:
        with self._book.read():
            return looking.stats(self._book)

    # Upkeep

    def tidy(self, now: Moment, most: int) -> int:
        """Forget up to so many things that nobody needs any more; how many there were."""
        with self._step():
            return self._upkeep.tidy(now, most)


def _reached(due: Moment | None, now: Moment) -> bool:
    """Either of its times."""
    return due is not None and (due.mono <= now.mono or due.wall <= now.wall)
