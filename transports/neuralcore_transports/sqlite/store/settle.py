"""Settling deliveries, one transaction's worth at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from neuralcore.messaging.transport import Outcome, PublishStatus, Settlement, SettleStatus
from neuralcore_transports.sqlite.store.entries import Entries, Lease
from neuralcore_transports.sqlite.store.messages import Messages
from neuralcore_transports.sqlite.store.moment import Moment
from neuralcore_transports.sqlite.store.registry import Position
from neuralcore_transports.sqlite.store.subscribers import Subscribers
from neuralcore_transports.sqlite.store.transaction import Book

__all__ = ["Settler"]


_STORED: Final = (PublishStatus.STORED, PublishStatus.DUPLICATE)


class Settler:
    def __init__(self, book: Book, messages: Messages, entries: Entries, subscribers: Subscribers) -> None:
        self._book = book
        self._messages = messages
        self._entries = entries
        self._subscribers = subscribers
        self._statuses: list[SettleStatus] = []
        self._plain: defaultdict[int, dict[int, Settlement]] = defaultdict(dict)
        """Acks of keyless messages, by position and index: nothing hangs on their order."""
        self._settled: defaultdict[int, list[int]] = defaultdict(list)
        """Messages by channel."""
        self._ended: set[int] = set()
        """Broadcasts that are over and had something in flight."""

    def settle(
        self, settlements: Sequence[Settlement], published: Sequence[PublishStatus], now: Moment
    ) -> list[SettleStatus]:
        """``published``: what has become of the same commit's publishes."""
        self._statuses = [SettleStatus.SETTLED] * len(settlements)
        for index, settlement in enumerate(settlements):
            lease = settlement.delivery.lease
            if _is_plain(settlement) and isinstance(lease, Lease):
                self._plain[lease.position][index] = settlement
            else:
                self._ack_plain(now)
                self._statuses[index] = self._settle(settlement, published, now)
        self._ack_plain(now)
        self._flush(now)
        return self._statuses

    def _ack_plain(self, now: Moment) -> None:
        """Together, or one by one where not all of them are leased."""
        for id, settlements in self._plain.items():
            position = self._book.registry.positions.get(id)
            leases: list[Any] = [settlement.delivery.lease for settlement in settlements.values()]
            if position is not None and self._entries.ack_all(id, leases):
                self._gone(position, [lease.seq for lease in leases])
            else:
                for index, settlement in settlements.items():
                    self._statuses[index] = self._settle(settlement, (), now)
        self._plain.clear()

    def _settle(self, settlement: Settlement, published: Sequence[PublishStatus], now: Moment) -> SettleStatus:
        if settlement.after is not None and published[settlement.after] not in _STORED:
            return SettleStatus.SKIPPED
        lease, envelope = settlement.delivery.lease, settlement.delivery.envelope
        if isinstance(lease, Lease):
            position = self._book.registry.positions.get(lease.position)
            if position is not None and self._apply(settlement, lease, position, envelope.key, now):
                return SettleStatus.SETTLED
        self._book.execute("UPDATE nc_channel SET rejected = rejected + 1 WHERE name = ?", (envelope.channel,))
        return SettleStatus.LEASE_LOST

    def _apply(self, settlement: Settlement, lease: Lease, position: Position, key: str | None, now: Moment) -> bool:
        outcome = settlement.outcome
        if outcome is Outcome.ATTEMPT:
            return self._entries.charge(lease)
        if outcome is Outcome.ACK or position.subscriber.ended:
            if not self._entries.ack(lease, key):
                return False
            self._gone(position, [lease.seq])
            return True
        if outcome is Outcome.NACK:
            return self._entries.nack(lease, key, settlement.delay_ns, settlement.pass_key, now)
        return self._entries.release(lease, key, now)

    def _gone(self, position: Position, seqs: Sequence[int]) -> None:
        """The position has settled them."""
        self._messages.count_entries(position.id, -len(seqs))
        self._settled[position.channel.id] += seqs
        if position.subscriber.ended:
            self._ended.add(position.subscriber.id)

    def _flush(self, now: Moment) -> None:
        for channel_id, seqs in self._settled.items():
            channel = self._book.registry.channel(channel_id)
            if channel is not None:
                self._messages.unclaim(channel, seqs, now, alone=len(channel.positions) == 1 and not self._ended)
        for subscriber in self._ended:
            self._subscribers.bury(subscriber)
        self.forget()

    def forget(self) -> None:
        """The transaction was undone."""
        self._plain.clear()
        self._settled.clear()
        self._ended.clear()


def _is_plain(settlement: Settlement) -> bool:
    return settlement.outcome is Outcome.ACK and settlement.after is None and settlement.delivery.envelope.key is None
