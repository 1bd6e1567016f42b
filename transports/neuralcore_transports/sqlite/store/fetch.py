"""Choosing what a fetch hands out: the most urgent of everything that is ready, within the demand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Any, Final, NamedTuple

from neuralcore.messaging.names import matches
from neuralcore.messaging.transport import Delivery, Demand, Envelope, Interest
from neuralcore_transports.sqlite.store.entries import Entries, Lease
from neuralcore_transports.sqlite.store.moment import Moment
from neuralcore_transports.sqlite.store.quarantine import Quarantine
from neuralcore_transports.sqlite.store.registry import Party, Position, Registry, specificity
from neuralcore_transports.sqlite.store.rows import COLUMNS, Corrupt, envelope_of
from neuralcore_transports.sqlite.store.transaction import Book

__all__ = ["Fetcher", "Reader"]

_HEAD: Final = (
    "SELECT priority, rank FROM nc_entry WHERE position = ? AND state = 1 AND priority < ? ORDER BY priority, rank LIMIT 1"
)
_CHUNK: Final = (
    f"SELECT e.failed, e.suspect, e.seq, {COLUMNS}"  # noqa: S608 - constants
    " FROM nc_entry e LEFT JOIN nc_message m ON m.seq = e.seq WHERE e.position = ? AND e.state = 1 AND e.priority < ?"
    " AND (e.priority, e.rank) <= (?, ?) ORDER BY e.priority, e.rank LIMIT ?"
)
_LAST: Final = (1 << 62, 0)
"""Behind every rank."""
_ANY: Final = 1 << 62
"""More relaxed than every priority."""


class Reader:
    """One consumer of one owner."""

    def __init__(self, owner: int, group: str | None) -> None:
        self.owner = owner
        self.group = group
        self.interests: dict[int, Interest] = {}
        self.parties: dict[int, int] = {}
        """The party of each interest."""
        self._version = -1
        self._positions: list[tuple[int, Position]] = []

    def set(self, interests: Sequence[Interest], parties: dict[int, int]) -> None:
        self.interests = {interest.id: interest for interest in interests}
        self.parties = parties
        self._version = -1

    def positions(self, registry: Registry) -> Sequence[tuple[int, Position]]:
        """With the interest that each answers."""
        if self._version != registry.version:
            self._positions = list(self._answered(registry))
            self._version = registry.version
        return self._positions

    def _answered(self, registry: Registry) -> Iterator[tuple[int, Position]]:
        if self.group is None:
            for id, party_id in self.parties.items():
                party = registry.parties.get(party_id)
                yield from ((id, position) for position in _living(party))
            return
        party = registry.group(self.group) if self.parties else None
        for position in _living(party):
            best = self._best(position.channel.name)
            if best is not None:
                yield best, position

    def _best(self, channel: str) -> int | None:
        """The most specific of the interests in the channel."""
        found = [interest for interest in self.interests.values() if matches(interest.pattern, channel)]
        best = min(found, key=lambda interest: specificity(interest.pattern), default=None)
        return None if best is None else best.id


def _living(party: Party | None) -> Sequence[Position]:
    return () if party is None or party.ended else list(party.positions.values())


class _Head(NamedTuple):
    """Where a position's ready entries begin."""

    rank: tuple[int, int]
    position: Position
    interest: int
    bound: int
    """Only what is more urgent."""

    def __lt__(self, other: tuple[object, ...]) -> bool:
        assert isinstance(other, _Head)
        return self.rank < other.rank


class Fetcher:
    def __init__(self, book: Book, entries: Entries, quarantine: Quarantine) -> None:
        self._book = book
        self._entries = entries
        self._quarantine = quarantine

    def anything(self, reader: Reader, demand: Mapping[int, Demand]) -> bool:
        """Whether there is something to fetch."""
        return any(True for _ in self._heads(reader, demand))

    def fetch(self, reader: Reader, demand: Mapping[int, Demand], now: Moment) -> list[Delivery]:
        left = {id: wanted.limit for id, wanted in demand.items()}
        heads = list(self._heads(reader, demand))
        heapify(heads)
        deliveries: list[Delivery] = []
        while heads:
            head = heappop(heads)
            wanted = left[head.interest]
            if wanted <= 0:
                continue
            until = heads[0].rank if heads else _LAST
            taken = self._take(reader.owner, head, until, wanted, now)
            deliveries += taken
            left[head.interest] -= len(taken)
            following = self._head(head.position, head.bound)
            if following is not None:
                heappush(heads, head._replace(rank=following))
        return deliveries

    def _heads(self, reader: Reader, demand: Mapping[int, Demand]) -> Iterator[_Head]:
        for interest, position in reader.positions(self._book.registry):
            wanted = demand.get(interest)
            if wanted is None or wanted.limit <= 0:
                continue
            bound = _ANY if wanted.more_urgent_than is None else wanted.more_urgent_than
            rank = self._head(position, bound)
            if rank is not None:
                yield _Head(rank, position, interest, bound)

    def _head(self, position: Position, bound: int) -> tuple[int, int] | None:
        row: tuple[int, int] | None = self._book.execute(_HEAD, (position.id, bound)).fetchone()
        return row

    def _take(self, owner: int, head: _Head, until: tuple[int, int], wanted: int, now: Moment) -> list[Delivery]:
        """Those of one position that come before all others."""
        position, taken, leases = head.position, [], []
        for row in self._book.rows(_CHUNK, (position.id, head.bound, *until, wanted)):
            seq = row[2]
            envelope = self._envelope(position, seq, row[3:], now)
            if envelope is None:
                continue
            if not self._entries.admits(position.id, envelope.key, seq):
                self._entries.park(position.id, seq)
                continue
            lease = Lease(seq, position.id, self._book.number())
            leases.append(lease)
            taken.append(
                Delivery(
                    envelope=envelope,
                    interest=head.interest,
                    attempt=row[0] + 1,
                    suspect=bool(row[1]),
                    lease=lease,
                )
            )
        self._entries.lease(owner, leases, now)
        return taken

    def _envelope(self, position: Position, seq: int, row: Sequence[Any], now: Moment) -> Envelope | None:
        """None when it is not what was stored; it is set aside then."""
        try:
            if row[1] != position.channel.id:
                raise Corrupt("its message is not there" if row[0] is None else "it is in a position of another channel")
            return envelope_of(row, position.channel.name)
        except Corrupt as error:
            self._quarantine.put(position.channel, seq, str(error), now)
            return None
