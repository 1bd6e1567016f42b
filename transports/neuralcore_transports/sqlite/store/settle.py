"""Settling deliveries, one transaction's worth at a time."""

from __future__ import annotations

from collections import defaultdict

from neuralcore.messaging.transport import Outcome, Settlement, SettleStatus
from neuralcore_transports.sqlite.store.entries import Entries, Lease
from neuralcore_transports.sqlite.store.messages import Messages
from neuralcore_transports.sqlite.store.moment import Moment
from neuralcore_transports.sqlite.store.parties import Parties
from neuralcore_transports.sqlite.store.registry import Position
from neuralcore_transports.sqlite.store.transaction import Book

__all__ = ["Settler"]


class Settler:
    def __init__(self, book: Book, messages: Messages, entries: Entries, parties: Parties) -> None:
        self._book = book
        self._messages = messages
        self._entries = entries
        self._parties = parties
        self._settled: defaultdict[int, list[int]] = defaultdict(list)
        """Messages by channel."""
        self._ended: set[int] = set()
        """Broadcasts that are over and had something in flight."""

    def settle(self, settlement: Settlement, now: Moment) -> SettleStatus:
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
        if outcome is Outcome.ACK or position.party.ended:
            if not self._entries.ack(lease, key):
                return False
            self._messages.count_entries(position.id, -1)
            self._settled[position.channel.id].append(lease.seq)
            if position.party.ended:
                self._ended.add(position.party.id)
            return True
        if outcome is Outcome.NACK:
            return self._entries.nack(lease, key, settlement.delay_ns, settlement.pass_key, now)
        return self._entries.release(lease, key, now)

    def flush(self, now: Moment) -> None:
        """At the end of a transaction."""
        for channel_id, seqs in self._settled.items():
            channel = self._book.registry.channel(channel_id)
            if channel is not None:
                self._messages.unclaim(channel, seqs, now, alone=len(channel.positions) == 1 and not self._ended)
        for party in self._ended:
            self._parties.bury(party)
        self.forget()

    def forget(self) -> None:
        """The transaction was undone."""
        self._settled.clear()
        self._ended.clear()
