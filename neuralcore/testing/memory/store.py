"""The store: a synchronous state machine of the whole transport contract.

It has no clock, no loop and no thread: every call brings its ``Moment``, and a simulation may drive it directly. Who
drives it from several threads holds ``lock`` around each call; ``wake`` callbacks are called inside such calls.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.errors import InvalidChannelName
from neuralcore.messaging.names import INBOX_PREFIX, validate_channel
from neuralcore.messaging.transport import (
    ChannelRef,
    CommitResult,
    Cursor,
    Delivery,
    Demand,
    Envelope,
    GroupRef,
    Interest,
    Outcome,
    Page,
    PublishStatus,
    Settlement,
    SettleStatus,
    StoreStats,
)
from neuralcore.testing.memory.channel import Channel
from neuralcore.testing.memory.cursors import after, resolve
from neuralcore.testing.memory.delays import Delays
from neuralcore.testing.memory.inboxes import Inboxes
from neuralcore.testing.memory.leases import Lease, Leases, Owner
from neuralcore.testing.memory.reader import Reader
from neuralcore.testing.memory.records import Entry, Moment
from neuralcore.testing.memory.subscriptions import Subscriptions

__all__ = ["MemoryStore"]


class MemoryStore:
    def __init__(
        self,
        *,
        lease: float = 10.0,
        max_hold: float = 3600.0,
        dedup_window: float = 300.0,
        session_ttl: float = 60.0,
        inbox_capacity: int = 10_000,
    ) -> None:
        """``session_ttl``: how long inboxes and broadcasts outlive an owner that fell silent. Times are in seconds."""
        self.lock = threading.Lock()
        self._channels: dict[str, Channel] = {}
        self._delays = Delays()
        self._leases = Leases(lease_ns=_ns(lease), max_hold_ns=_ns(max_hold))
        self._inboxes = Inboxes(inbox_capacity)
        self._subscriptions = Subscriptions(self._channels, self._delays, self._next_seq)
        self._owners: dict[Owner, None] = {}
        self._dedup_window_ns = _ns(dedup_window)
        self._session_ttl_ns = _ns(max(session_ttl, lease))
        self._seq = 0

    # Owners

    def connect(self, name: str, wake: Callable[[], None] = lambda: None) -> Owner:
        owner = Owner(name, wake)
        self._owners[owner] = None
        return owner

    def disconnect(self, owner: Owner, now: Moment) -> None:
        """A clean end: what it has leased goes back untouched."""
        self._advance(now)
        for lease in list(owner.leases.values()):
            self._release(lease, now)
        self._end_session(owner, now)
        self._owners.pop(owner, None)
        self._wake_owners()

    def silence(self, owner: Owner, now: Moment) -> None:
        """Its process died or was stopped: nobody extends its leases from here on."""
        self._advance(now)
        if owner.silent_since is None:
            owner.silent_since = now.mono
        self._wake_owners()

    def resume(self, owner: Owner, now: Moment) -> None:
        """A stopped process runs again, with the leases that it still has."""
        self._advance(now)
        owner.silent_since = None
        self._owners[owner] = None
        self._wake_owners()

    def _wake_owners(self) -> None:
        for owner in list(self._owners):
            owner.wake()

    def _end_session(self, owner: Owner, now: Moment) -> None:
        self._inboxes.close_all(owner)
        self._subscriptions.close_all(owner, now)

    # Channels

    def declare(self, config: ChannelConfig, now: Moment) -> None:
        self._advance(now)
        channel = self._channels.get(config.name)
        if channel is None:
            self._create(config, now)
        else:
            channel.configure(config, now)

    def channels(self) -> list[str]:
        return list(self._channels)

    def _create(self, config: ChannelConfig, now: Moment) -> Channel:
        channel = self._channels[config.name] = Channel(config, self._dedup_window_ns)
        self._subscriptions.pick_up(channel, now)
        for owner in self._owners:
            owner.channels_changed = True
        self._wake_owners()
        return channel

    def remove(self, target: ChannelRef | GroupRef, now: Moment) -> None:
        self._advance(now)
        if isinstance(target, ChannelRef):
            in_flight = self._subscriptions.forget_channel(target.channel, now)
            self._channels.pop(target.channel, None)
        else:
            in_flight = self._subscriptions.forget_group(target.group, target.channel, now)
        self._lose(in_flight)
        self._wake_owners()

    # Publishing and settling

    def commit(self, publishes: Sequence[Envelope], settlements: Sequence[Settlement], now: Moment) -> CommitResult:
        """All of it in one step; a settlement ``after`` a publish that was not stored is skipped."""
        self._advance(now)
        reasons: dict[int, str] = {}
        published = [self._publish(envelope, now, index, reasons) for index, envelope in enumerate(publishes)]
        settled = [self._settle_after(settlement, published, now) for settlement in settlements]
        return CommitResult(published, settled, reasons)

    def _publish(self, envelope: Envelope, now: Moment, index: int, reasons: dict[int, str]) -> PublishStatus:
        try:
            return self.publish(envelope, now)
        except InvalidChannelName as error:
            reasons[index] = str(error)
            return PublishStatus.REFUSED

    def publish(self, envelope: Envelope, now: Moment) -> PublishStatus:
        """One message, into its channel or the inbox of that address."""
        if envelope.channel.startswith(INBOX_PREFIX):
            return self._inboxes.put(envelope)
        channel = self._channels.get(envelope.channel)
        if channel is None:
            validate_channel(envelope.channel, internal=True)
            channel = self._create(ChannelConfig(envelope.channel), now)
        return channel.publish(envelope, self._next_seq, now)

    def _settle_after(self, settlement: Settlement, published: Sequence[PublishStatus], now: Moment) -> SettleStatus:
        stored = (PublishStatus.STORED, PublishStatus.DUPLICATE)
        if settlement.after is not None and published[settlement.after] not in stored:
            return SettleStatus.SKIPPED
        return self.settle(settlement, now)

    def settle(self, settlement: Settlement, now: Moment) -> SettleStatus:
        lease = self._leases.find(settlement.delivery)
        if lease is None:
            channel = self._channels.get(settlement.delivery.envelope.channel)
            if channel is not None:
                channel.rejected_settlements += 1
            return SettleStatus.LEASE_LOST
        self._apply(settlement, lease, now)
        return SettleStatus.SETTLED

    def _apply(self, settlement: Settlement, lease: Lease, now: Moment) -> None:
        entry = lease.entry
        if settlement.outcome is Outcome.ACK:
            self._leases.end(lease)
            entry.position.ack(entry, now)
        elif settlement.outcome is Outcome.NACK:
            self._charge(lease)
            self._leases.end(lease)
            entry.position.nack(entry, settlement.delay_ns, settlement.pass_key, now)
        elif settlement.outcome is Outcome.RELEASE:
            self._release(lease, now)
        else:
            self._charge(lease)

    def _charge(self, lease: Lease) -> None:
        if not lease.charged:
            lease.charged = True
            lease.entry.failed += 1

    def _release(self, lease: Lease, now: Moment) -> None:
        """Untouched: an attempt that was stored for a suspect has not happened."""
        lease.entry.failed -= lease.charged
        self._leases.end(lease)
        lease.entry.position.release(lease.entry, now)

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    # Consuming

    def reader(self, owner: Owner, group: str | None, wake: Callable[[], None] = lambda: None) -> Reader:
        return self._subscriptions.open(Reader(owner, group, wake))

    def update(self, reader: Reader, interests: Sequence[Interest], now: Moment) -> None:
        self._advance(now)
        self._subscriptions.update(reader, interests, now)

    def is_open(self, reader: Reader) -> bool:
        """False once it was closed, or forgotten with its silent owner."""
        return self._subscriptions.is_open(reader)

    def fetch(self, reader: Reader, demand: Mapping[int, Demand], now: Moment) -> list[Delivery]:
        self._advance(now)
        return [
            self._leases.grant(entry, reader.owner, interest, now.mono) for interest, entry in reader.select(demand)
        ]

    def seek(self, reader: Reader, interest: int, position: Cursor, now: Moment) -> None:
        """Every message from there on again, as if new; in-flight ones are lost to their owners."""
        self._advance(now)
        self._lose(self._subscriptions.seek(reader, interest, position, now))

    def close_reader(self, reader: Reader, now: Moment) -> None:
        self._advance(now)
        self._subscriptions.close(reader, now)

    # Replies

    def open_inbox(self, owner: Owner, wake: Callable[[], None] = lambda: None, address: str | None = None) -> str:
        """The address: a new one, or one that was forgotten with its owner."""
        address = address or f"{INBOX_PREFIX}{owner.name}.{self._next_seq()}"
        self._inboxes.open(address, owner, wake)
        return address

    def take_replies(self, address: str, now: Moment) -> list[Envelope] | None:
        """None when the inbox was closed, or forgotten with its silent owner."""
        self._advance(now)
        return self._inboxes.take(address)

    def close_inbox(self, address: str) -> None:
        self._inboxes.close(address)

    # Looking in

    def browse(self, name: str, start: Cursor, limit: int, now: Moment) -> Page:
        self._advance(now)
        channel = self._channels.get(name)
        if channel is None:
            return Page((), None)
        channel.trim(now)
        found = list(islice(channel.read(resolve(start, [channel])), limit + 1))
        page = found[:limit]
        return Page(
            [record.envelope for record in page],
            after(page[-1]) if len(found) > limit and page else None,
        )

    def stats(self, now: Moment) -> dict[str, StoreStats]:
        self._advance(now)
        return {name: self._stats(channel, now) for name, channel in self._channels.items()}

    def _stats(self, channel: Channel, now: Moment) -> StoreStats:
        channel.trim(now)
        lag: dict[str, int] = {p.group.name: len(p.entries) for p in channel.positions if p.group.name is not None}
        return StoreStats(
            depth=channel.open,
            in_flight=sum(position.leased for position in channel.holders),
            stored=len(channel.log),
            lag=lag,
            rejected_settlements=channel.rejected_settlements,
        )

    # Time

    def advance(self, now: Moment) -> None:
        """Do what has become due. Every other call does it first."""
        self._advance(now)

    def next_event(self, now: Moment) -> int | None:
        """The monotonic time of the next thing that ``advance`` will do."""
        earliest = self._delays.next(now)
        for owner in self._owners:
            earliest = _earlier(earliest, self._leases.next(owner))
            if owner.silent_since is not None:
                earliest = _earlier(earliest, owner.silent_since + self._session_ttl_ns)
        return earliest

    def _advance(self, now: Moment) -> None:
        for entry in self._delays.due(now):
            entry.position.ready(entry)
        for owner in list(self._owners):
            for lease in self._leases.expired(owner, now.mono):
                lease.entry.position.suspect(lease.entry, now)
                self._tell_lost(lease)
            self._end_if_silent(owner, now)

    def _end_if_silent(self, owner: Owner, now: Moment) -> None:
        """A silent owner is forgotten; should it come back, it has to subscribe again."""
        silent = owner.silent_since
        if silent is None or now.mono - silent < self._session_ttl_ns:
            return
        self._end_session(owner, now)
        del self._owners[owner]

    # Leases that end against their owner's will

    def _lose(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.lease is not None:
                lease = entry.lease
                self._leases.end(lease)
                self._tell_lost(lease)

    def _tell_lost(self, lease: Lease) -> None:
        lease.owner.lost.append(lease.delivery)
        lease.owner.wake()


def _earlier(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
