"""Choosing what a fetch hands out: the most urgent of everything that is ready, within the demand."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Any, Final, NamedTuple

from neuralcore.messaging.names import matches, specificity
from neuralcore.messaging.transport import Delivery, Demand, Envelope, Interest
from neuralcore_transports.sqlite.store.entries import Entries, Lease, Taken
from neuralcore_transports.sqlite.store.fresh import Fresh
from neuralcore_transports.sqlite.store.messages import PRIORITIES
from neuralcore_transports.sqlite.store.moment import Moment
from neuralcore_transports.sqlite.store.owners import Owners
from neuralcore_transports.sqlite.store.quarantine import Quarantine
from neuralcore_transports.sqlite.store.registry import Position, Registry, Subscriber
from neuralcore_transports.sqlite.store.rows import COLUMNS, Corrupt, envelope_of
from neuralcore_transports.sqlite.store.schema import MessageState
from neuralcore_transports.sqlite.store.transaction import Book

__all__ = ["Ask", "Fetched", "Fetcher", "Reader"]

_BACK: Final = (
    "SELECT priority, rank FROM nc_entry WHERE position = ? AND state = 1 AND priority < ?"
    " ORDER BY priority, rank LIMIT 1"
)
_BACK_ROWS: Final = (
    f"SELECT e.failed, e.suspect, e.seq, {COLUMNS}"
    " FROM nc_entry e LEFT JOIN nc_message m ON m.seq = e.seq WHERE e.position = ? AND e.state = 1 AND e.priority < ?"
    " AND (e.priority, e.rank) <= (?, ?) ORDER BY e.priority, e.rank LIMIT ?"
)
_NEW: Final = (
    f"{PRIORITIES} SELECT priority, (SELECT min(seq) FROM nc_message WHERE channel = ? AND priority = p.priority"
    " AND seq >= ifnull((SELECT next FROM nc_cursor WHERE position = ? AND priority = p.priority), ?)) AS seq"
    " FROM p WHERE priority < ? AND seq IS NOT NULL"
)
"""Where the messages begin that a position has not taken yet, priority by priority."""
_NEW_ROWS: Final = (
    f"SELECT m.state, {COLUMNS} FROM nc_message m"
    " WHERE m.channel = ? AND m.priority = ? AND m.seq >= ? AND m.seq <= ? ORDER BY m.seq LIMIT ?"
)
_Row = tuple[int, int, int, Sequence[Any]]
"""Failed attempts, whether it is suspect, its number, and its COLUMNS."""
_Found = tuple[int, int, int, Envelope]
"""The same, with the envelope that its COLUMNS make."""

_MOST: Final = 5_000
"""Messages that one fetch looks at."""
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
        self.subscribers: dict[int, int] = {}
        """The subscriber of each interest."""
        self._loaded = -1
        self._positions: list[tuple[int, Position]] = []

    def set(self, interests: Sequence[Interest], subscribers: dict[int, int]) -> None:
        self.interests = {interest.id: interest for interest in interests}
        self.subscribers = subscribers
        self._loaded = -1

    def subscriber(self, interest: int, registry: Registry) -> Subscriber | None:
        """None when it was removed, or forgotten. A group that was made anew is the same one to its readers."""
        if self.group is not None:
            return registry.group(self.group)
        return registry.subscribers.get(self.subscribers[interest])

    def is_open(self, registry: Registry) -> bool:
        """False once its broadcasts were forgotten with its silent owner. A group outlives everybody."""
        return self.group is not None or all(
            subscriber in registry.subscribers for subscriber in self.subscribers.values()
        )

    def positions(self, registry: Registry) -> Sequence[tuple[int, Position]]:
        """With the interest that each answers."""
        if self._loaded != registry.loads:
            self._positions = list(self._answered(registry))
            self._loaded = registry.loads
        return self._positions

    def _answered(self, registry: Registry) -> Iterator[tuple[int, Position]]:
        if self.group is None:
            for id, subscriber_id in self.subscribers.items():
                subscriber = registry.subscribers.get(subscriber_id)
                yield from ((id, position) for position in _living(subscriber))
            return
        subscriber = registry.group(self.group) if self.subscribers else None
        for position in _living(subscriber):
            best = self._best(position.channel.name)
            if best is not None:
                yield best, position

    def _best(self, channel: str) -> int | None:
        """The most specific of the interests in the channel."""
        found = [interest for interest in self.interests.values() if matches(interest.pattern, channel)]
        best = min(found, key=lambda interest: specificity(interest.pattern), default=None)
        return None if best is None else best.id


def _living(subscriber: Subscriber | None) -> Sequence[Position]:
    return () if subscriber is None or subscriber.ended else list(subscriber.positions.values())


class Ask(NamedTuple):
    reader: Reader
    demand: Mapping[int, Demand]


class Fetched(NamedTuple):
    deliveries: list[Delivery]
    again: bool
    """There was more than one transaction should look at."""
    due: Moment | None
    """The next delayed message may be there when either time is reached, which may be far away."""
    open: bool
    """See ``Reader.is_open``."""


class _Head(NamedTuple):
    """Where something begins that a position may hand out: what came back to it, or what it has not taken yet."""

    rank: tuple[int, int]
    """Priority, and order among equals."""
    position: Position
    interest: int
    bound: int
    """Only what is more urgent."""
    new: bool

    def __lt__(self, other: tuple[object, ...]) -> bool:
        assert isinstance(other, _Head)
        return self.rank < other.rank


class Fetcher:
    def __init__(self, book: Book, entries: Entries, owners: Owners, quarantine: Quarantine, fresh: Fresh) -> None:
        self._book = book
        self._entries = entries
        self._owners = owners
        self._quarantine = quarantine
        self._fresh = fresh
        self._known_alive = (0, -1)
        """An owner, and the epoch in which it is known that it was not given up."""

    def anything(self, reader: Reader, demand: Mapping[int, Demand]) -> bool:
        """Whether there may be something to fetch."""
        return any(True for _ in self._heads(reader, demand))

    def fetch(self, reader: Reader, demand: Mapping[int, Demand], now: Moment) -> tuple[list[Delivery], bool]:
        """Also whether to look again at once: this call has looked at as much as one transaction should."""
        if not self._is_alive(reader.owner):
            return [], False  # it stood still and was given up; what it got now would be nobody's for ever
        wanted = {
            position: interest
            for interest, position in reader.positions(self._book.registry)
            if interest in demand and demand[interest].limit > 0
        }
        with_some = self._fresh.only(wanted)
        if with_some is not None and len(with_some) <= 1:
            return [
                delivery
                for position in with_some
                for delivery in self._hand_over(reader.owner, position, wanted[position], demand, now)
            ], False
        for position in wanted:
            self._fresh.search(position)
        epoch = self._book.epoch
        deliveries, cut, again = self._search(reader, demand, now)
        again |= epoch != self._book.epoch  # what it set aside held a key
        if not again:
            for position, interest in wanted.items():
                if position not in cut and demand[interest].more_urgent_than is None:
                    self._fresh.drained(position)
        return deliveries, again

    def _is_alive(self, owner: int) -> bool:
        known = owner, self._book.epoch
        if self._known_alive != known:
            if not self._owners.lives(owner):
                return False
            self._known_alive = known
        return True

    def _hand_over(
        self, owner: int, position: Position, interest: int, demand: Mapping[int, Demand], now: Moment
    ) -> list[Delivery]:
        """Of what is fresh; there is nothing else that it could take."""
        limit, bound = demand[interest].limit, demand[interest].more_urgent_than
        deliveries: list[Delivery] = []
        left = self._fresh.pending(position)
        while left and len(deliveries) < limit:
            part = left[: limit - len(deliveries)]
            if bound is not None:
                part = [each for each in part if each[0] < bound]
                if not part:
                    break
            left = left[len(part) :]
            for priority, last in {priority: seq for priority, seq, _ in part}.items():
                self._entries.move_cursor(position.id, priority, last + 1)
            found = [(0, 0, seq, envelope) for _, seq, envelope in part]
            deliveries += self._lease(owner, position, interest, found, now, new=True)
        self._fresh.keep(position, left)
        return deliveries

    def _search(
        self, reader: Reader, demand: Mapping[int, Demand], now: Moment
    ) -> tuple[list[Delivery], set[Position], bool]:
        """Also the positions that may have more than was wanted, and whether to look again."""
        left = {id: wanted.limit for id, wanted in demand.items()}
        heads = list(self._heads(reader, demand))
        heapify(heads)
        deliveries: list[Delivery] = []
        cut: set[Position] = set()
        looked = 0
        while heads:
            head = heappop(heads)
            wanted = left[head.interest]
            if wanted <= 0:
                cut.add(head.position)
                continue
            if looked > _MOST:
                return deliveries, cut, True
            until = heads[0].rank if heads else _LAST
            seen, taken = self._take(reader.owner, head, until, wanted, now)
            looked += seen
            left[head.interest] -= len(taken)
            deliveries += taken
            if left[head.interest] <= 0:
                cut.add(head.position)
                continue  # nobody wants what follows
            whole = until is _LAST or (head.new and until[0] > head.rank[0])
            if whole and 0 < seen < wanted:
                continue  # nothing does
            following = self._following(head)
            if following is not None:
                if not seen and following.rank == head.rank:  # for ever, with everybody waiting for the lock
                    raise sqlite3.DatabaseError("malformed: an index names a message that is not in its table")
                heappush(heads, following)
        return deliveries, cut, False

    def _heads(self, reader: Reader, demand: Mapping[int, Demand]) -> Iterator[_Head]:
        for interest, position in reader.positions(self._book.registry):
            wanted = demand.get(interest)
            if wanted is None or wanted.limit <= 0:
                continue
            bound = _ANY if wanted.more_urgent_than is None else wanted.more_urgent_than
            back = self._book.execute(_BACK, (position.id, bound)).fetchone()
            if back is not None:
                yield _Head(back, position, interest, bound, new=False)
            channel = position.channel.id
            where = (channel, channel, channel, position.id, position.start, bound)
            for rank in self._book.execute(_NEW, where).fetchall():
                yield _Head(rank, position, interest, bound, new=True)

    def _following(self, head: _Head) -> _Head | None:
        if not head.new:
            back = self._book.execute(_BACK, (head.position.id, head.bound)).fetchone()
            return None if back is None else head._replace(rank=back)
        priority = head.rank[0]
        (seq,) = self._book.execute(
            "SELECT min(seq) FROM nc_message WHERE channel = ? AND priority = ? AND seq >= ?",
            (head.position.channel.id, priority, self._entries.cursor(head.position, priority)),
        ).fetchone()
        return None if seq is None else head._replace(rank=(priority, seq))

    def _take(
        self, owner: int, head: _Head, until: tuple[int, int], wanted: int, now: Moment
    ) -> tuple[int, list[Delivery]]:
        """Those of one head that come before all others; how many were looked at."""
        seen, rows = self._new_rows(head, until, wanted) if head.new else self._rows_back(head, until, wanted)
        found = [
            (failed, suspect, seq, envelope)
            for failed, suspect, seq, row in rows
            if (envelope := self._envelope(head.position, seq, row, now)) is not None
        ]
        return seen, self._lease(owner, head.position, head.interest, found, now, new=head.new)

    def _lease(
        self, owner: int, position: Position, interest: int, found: Sequence[_Found], now: Moment, *, new: bool
    ) -> list[Delivery]:
        """Those that their keys admit."""
        deliveries, taken = [], []
        for failed, suspect, seq, envelope in found:
            key = envelope.key
            number = self._book.number() if self._entries.admits(position.id, key, seq) else None
            taken.append(Taken(seq, envelope.priority, key, number, new))
            if number is not None:
                deliveries.append(
                    Delivery(
                        envelope=envelope,
                        interest=interest,
                        attempt=failed + 1,
                        suspect=bool(suspect),
                        lease=Lease(seq, position.id, number),
                    )
                )
        self._entries.take(owner, position.id, taken, now)
        return deliveries

    def _rows_back(self, head: _Head, until: tuple[int, int], wanted: int) -> tuple[int, list[_Row]]:
        found = self._book.rows(_BACK_ROWS, (head.position.id, head.bound, *until, wanted))
        return len(found), [(row[0], row[1], row[2], row[3:]) for row in found]

    def _new_rows(self, head: _Head, until: tuple[int, int], wanted: int) -> tuple[int, list[_Row]]:
        """The position has taken them from here on. What was published with a delay has its own entries, and may be
        settled and kept before the cursor has come to it.
        """
        priority, first = head.rank
        last = until[1] if until[0] == priority else _ANY
        found = self._book.rows(_NEW_ROWS, (head.position.channel.id, priority, first, last, wanted))
        if found:
            self._entries.move_cursor(head.position.id, priority, found[-1][1] + 1)
        return len(found), [(0, 0, row[1], row[1:]) for row in found if row[0] == MessageState.OPEN]

    def _envelope(self, position: Position, seq: int, row: Sequence[Any], now: Moment) -> Envelope | None:
        """None when it is not what was stored; it is set aside then."""
        try:
            if row[1] != position.channel.id:
                raise Corrupt(
                    "its message is not there" if row[0] is None else "it is in a position of another channel"
                )
            return envelope_of(row, position.channel.name)
        except Corrupt as error:
            self._quarantine.put(position, seq, str(error), now)
            return None
