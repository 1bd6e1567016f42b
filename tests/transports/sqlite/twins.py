"""One script, told to the reference and to the SQLite store at the same moments; every answer is compared.

Where the two may differ is said here and nowhere else:

* A start at a time takes, in the store, everything from the first message on that is new enough: numbers, not times,
  are what it keeps in order. The reference looks at each message's own time, which differs once the wall clock was set
  back; ``_resolve`` has it read such a cursor as the store does.
* The store trims and collects a little at a time, the reference at once: ``tidy`` is called until it answers 0 before
  anything is compared.
* One message in two broadcasts of one reader: either may come first.
* Cursors for the next page, lease tokens and the order in which lost leases are told are each store's own.
* Leases of a process that was forgotten altogether are not told one by one: it learns that it has to begin again.
* A cursor that is the id of several messages of one channel (sent again after the window, replayed, or another's
  idempotency key): the reference knows the last one that was stored, the store the last that is kept. Not asked.
* Whether a message waits parked behind a key or ready is told apart only by who looked at it first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar
from unittest.mock import patch

from neuralcore.messaging.channel import ChannelConfig, Retention
from neuralcore.messaging.names import INBOX_PREFIX
from neuralcore.messaging.transport import (
    ChannelRef,
    CommitResult,
    Delivery,
    Demand,
    Envelope,
    GroupRef,
    Interest,
    Outcome,
    PublishStatus,
    Settlement,
    SettleStatus,
)
from neuralcore.testing.memory import MemoryStore, cursors, subscriptions
from neuralcore.testing.memory import Reader as MemoryReader
from neuralcore.testing.memory import store as memory_store
from neuralcore_transports.sqlite.store import fetch, messages, publish, subscribers
from neuralcore_transports.sqlite.store import store as store_steps
from neuralcore_transports.sqlite.store.fetch import Ask, Fetched, Reader
from neuralcore_transports.sqlite.store.moment import Limits, Moment
from neuralcore_transports.sqlite.store.store import Store
from neuralcore_transports.sqlite.store.transaction import Book
from tests.transports.histories import CHANNELS, GROUPS, LATE, SLOTS, Op
from tests.transports.sqlite.insides import check_alike, check_invariants
from tests.transports.sqlite.model import connection

__all__ = ["LIMITS", "Slot", "Twins", "run"]

T = TypeVar("T")

_Pair = tuple[Delivery, Delivery]
SECOND = 10**9
START = Moment(1_000 * SECOND, 1_750_000_000 * SECOND)
LIMITS = Limits(
    lease=3 * SECOND, max_hold=20 * SECOND, dedup_window=10 * SECOND, session_ttl=8 * SECOND, inbox_capacity=3
)
KEPT_HELD = 40
KEPT_LATE = 4
"""Deliveries that a slot remembers; settling what it has lost or settled is a part of its life."""


def _resolve(cursor: Any, channels: Any) -> Callable[[Any], bool]:
    channels = list(channels)
    if not isinstance(cursor, datetime):
        return _exact(cursor, channels)
    wanted = _exact(cursor, channels)
    first = min((seq for channel in channels for seq, r in channel.log.items() if wanted(r)), default=1 << 62)
    return lambda record: record.seq >= first


_exact = cursors.resolve

_OF_A_SLOT = {"commit", "join", "fetch", "seek", "leave", "silence", "resume", "disconnect", "inbox"}


class Slot:
    """A process: its owner, its consumers and what it was handed, in both stores."""

    def __init__(self, number: int, twins: Twins) -> None:
        self.number = number
        self.store = twins.stores[number % len(twins.stores)]
        self.mine = twins.memory.connect(f"slot{number}")
        self.silent = False
        self.held: list[_Pair] = []
        self.late: list[_Pair] = []
        """What it was handed in both stores: still to be settled, and settled."""
        self.readers: dict[str | None, tuple[MemoryReader, Reader]] = {}
        self.interests: dict[str | None, list[Interest]] = {group: [] for group in GROUPS}
        self.owner = twins.sql(self.store, lambda store: store.connect(f"slot{number}", "boot", twins.now))
        self._ids = 0

    def reader(self, group: str | None, twins: Twins) -> tuple[MemoryReader, Reader]:
        if group not in self.readers:
            self.readers[group] = (twins.memory.reader(self.mine, group), Reader(self.owner, group))
        return self.readers[group]

    def wanted(self, group: str | None, patterns: Sequence[str], start: Any) -> list[Interest]:
        """What it has already stays as it was."""
        known = {interest.pattern: interest for interest in self.interests[group]}
        return [known.get(pattern) or self._interest(pattern, start) for pattern in patterns]

    def _interest(self, pattern: str, start: Any) -> Interest:
        self._ids += 1
        return Interest(id=self._ids, pattern=pattern, start=start)

    def one_of(self, which: int) -> list[_Pair]:
        """That one, counted from the last; none when there is none."""
        found = self.late if which >= LATE else self.held
        return [found[-1 - which % LATE % len(found)]] if found else []

    def put_aside(self, pairs: Sequence[_Pair], outcomes: Sequence[Outcome], settled: Sequence[SettleStatus]) -> None:
        for pair, outcome, status in zip(pairs, outcomes, settled, strict=True):
            if pair in self.held and outcome is not Outcome.ATTEMPT and status is not SettleStatus.SKIPPED:
                self.held.remove(pair)
                self.late.append(pair)
        del self.late[:-KEPT_LATE]


class Twins:
    """``path`` and ``processes``: on a file, with so many connections that take turns. ``most``: how much one ``tidy``
    does; ``beside``: how much a transaction tidies beside its own work; ``looks``: how much a fetch looks at.
    """

    def __init__(
        self,
        *,
        path: str = ":memory:",
        processes: int = 1,
        most: int = 1000,
        beside: int = messages.BESIDE,
        looks: int = fetch._MOST,
    ) -> None:
        self.memory = MemoryStore(
            lease=LIMITS.lease / 1e9,
            max_hold=LIMITS.max_hold / 1e9,
            dedup_window=LIMITS.dedup_window / 1e9,
            session_ttl=LIMITS.session_ttl / 1e9,
            inbox_capacity=LIMITS.inbox_capacity,
        )
        self.patches = ExitStack()
        for module in (memory_store, subscriptions):
            self.patches.enter_context(patch.object(module, "resolve", _resolve))
        for user in (messages, publish, store_steps, subscribers):
            self.patches.enter_context(patch.object(user, "BESIDE", beside))
        self.patches.enter_context(patch.object(fetch, "_MOST", looks))
        self.now = START
        self.most = most
        self.damaged: list[str] = []
        self.stores = [self._open(path, first=number == 0) for number in range(processes)]
        self.pages: list[tuple[str, str]] = []
        """Cursors of next pages, in both stores."""
        self.names: Counter[tuple[str, str]] = Counter()
        """How many messages a channel has had under one name."""
        self.turn = 0
        self.slots = [Slot(number, self) for number in SLOTS]

    def _open(self, path: str, *, first: bool) -> Store:
        book = Book(connection(path, new=first), level="OFF")
        return Store(book, LIMITS, tell=lambda channel, what: self.damaged.append(what))

    def close(self) -> None:
        self.patches.close()
        for store in self.stores:
            store.connection.close()

    def sql(self, store: Store, step: Callable[[Store], T]) -> T:
        """Every step of the SQLite store goes through here."""
        return step(store)

    def anybody(self) -> Store:
        """Who does what any process may do."""
        self.turn += 1
        return self.stores[self.turn % len(self.stores)]

    # Steps

    def step(self, op: Op) -> None:
        verb, *what = op
        if not (verb in _OF_A_SLOT and self._idle(verb, self.slots[what[0]], what[1:])):
            getattr(self, verb)(*what)
            self.check()

    def _idle(self, verb: str, slot: Slot, what: list[Any]) -> bool:
        """Whether that slot cannot do it: a process that stands still does nothing."""
        if verb == "resume":
            return not slot.silent
        if slot.silent:
            return True
        if verb in ("fetch", "leave"):
            return what[0] not in slot.readers
        return verb == "seek" and not slot.interests[what[0]]

    def check(self) -> None:
        while self.sql(self.anybody(), lambda store: store.tidy(self.now, self.most)):
            pass
        store = self.anybody()
        expected, found = self.memory.stats(self.now), store.stats()
        self.same("stats", expected, found)
        self.same("channels", self.memory.channels(), store.channels())
        for slot in self.slots:
            if not slot.silent:
                self._lost(slot)
        check_invariants(store.connection)
        check_alike(self, store.connection)
        assert not self.damaged, self.damaged

    def same(self, what: str, expected: Any, found: Any) -> None:
        assert found == expected, f"{what}: the reference says\n  {expected}\nthe store says\n  {found}"

    def both(self, mine: Callable[[], T], store: Store, theirs: Callable[[Store], Any]) -> tuple[T, Any] | None:
        """None when both refuse."""
        try:
            expected, error = mine(), None
        except ValueError as refused:
            error = refused
        try:
            found, other = self.sql(store, theirs), None
        except ValueError as refused:
            other = refused
        assert (error is None) == (other is None), f"the reference raises {error!r}, the store {other!r}"
        return None if error is not None else (expected, found)  # type: ignore[possibly-undefined]

    # Publishing and settling

    def declare(self, channel: str, fields: dict[str, Any]) -> None:
        retention = fields.get("retention")
        config = ChannelConfig(channel, **{**fields, "retention": Retention(**retention) if retention else None})
        self.memory.declare(config, self.now)
        self.sql(self.anybody(), lambda store: store.declare(config, self.now))

    def commit(self, number: int, publishes: Sequence[dict[str, Any]], settlements: Sequence[tuple[Any, ...]]) -> None:
        slot = self.slots[number]
        envelopes = [self._envelope(**fields) for fields in publishes]
        settlements = [each for each in settlements if slot.one_of(each[0])]
        pairs = [slot.one_of(which)[0] for which, *_ in settlements]
        mine, theirs = (
            [
                Settlement(pair[side], Outcome(outcome), round(delay * SECOND), pass_key, self._after(after, envelopes))
                for pair, (_, outcome, delay, pass_key, after) in zip(pairs, settlements, strict=True)
            ]
            for side in (0, 1)
        )
        expected = self.memory.commit(envelopes, mine, self.now)
        found = self.commit_to(slot.store, envelopes, theirs)
        self.same("commit", expected, found)
        slot.put_aside(pairs, [Outcome(outcome) for _, outcome, *_ in settlements], found.settled)
        for envelope, status in zip(envelopes, found.published, strict=True):
            if status is PublishStatus.STORED:
                self.names.update((envelope.channel, name) for name in {envelope.id, envelope.dedup_key or envelope.id})

    def exchange(
        self,
        number: int,
        group: str | None,
        limits: Sequence[int],
        bound: int | None,
        publishes: Sequence[dict[str, Any]],
        settlements: Sequence[tuple[Any, ...]],
    ) -> None:
        """A commit and a fetch, in one."""
        slot, commit_to = self.slots[number], self.commit_to
        ask = Ask(slot.readers[group][1], self._demand(slot, group, limits, bound))
        handed: list[Fetched] = []

        def exchanging(store: Store, envelopes: Sequence[Envelope], settled: Sequence[Settlement]) -> CommitResult:
            result, fetched = self.sql(store, lambda store: store.exchange(envelopes, settled, [ask], self.now))
            handed.extend(fetched)
            return result

        self.commit_to = exchanging  # type: ignore[method-assign]
        try:
            Twins.commit(self, number, publishes, settlements)
        finally:
            self.commit_to = commit_to  # type: ignore[method-assign]
        self._fetch(slot, group, ask.demand, handed)

    def commit_to(self, store: Store, envelopes: Sequence[Envelope], settlements: Sequence[Settlement]) -> CommitResult:
        return self.sql(store, lambda store: store.commit(envelopes, settlements, self.now))

    def _after(self, after: int | None, envelopes: Sequence[Envelope]) -> int | None:
        return after if after is not None and after < len(envelopes) else None

    def _envelope(
        self,
        *,
        n: int,
        channel: str = "",
        inbox: int | None = None,
        size: int = 0,
        delay: float = 0.0,
        not_before: float | None = None,
        **fields: Any,
    ) -> Envelope:
        return Envelope(
            id=f"m{n}",
            channel=channel if inbox is None else self._address(inbox),
            body=b"." * size,
            delay_ns=round(delay * SECOND),
            not_before_ns=None if not_before is None else self.now.wall + round(not_before * SECOND),
            **fields,
        )

    # Consuming

    def join(self, number: int, group: str | None, patterns: Sequence[str], start: Any) -> None:
        slot = self.slots[number]
        mine, theirs = slot.reader(group, self)
        wanted = [slot.wanted(group, patterns, self._cursor(start, side)) for side in (0, 1)]
        # the two sides' interests have the same numbers: the second was made only for its own cursor
        wanted[1] = [
            Interest(id=one.id, pattern=one.pattern, start=other.start)
            for one, other in zip(wanted[0], wanted[1], strict=True)
        ]
        if self.both(
            lambda: self.memory.update(mine, wanted[0], self.now),
            slot.store,
            lambda store: store.update(theirs, wanted[1], self.now),
        ):
            slot.interests[group] = wanted[0]

    def _cursor(self, cursor: Any, side: int) -> Any:
        if not isinstance(cursor, tuple):
            return cursor
        kind, value = cursor
        if kind == "id":
            several = any(self.names[channel, f"m{value}"] > 1 for channel in CHANNELS)
            return "beginning" if several else f"m{value}"
        if kind == "place":
            return self.pages[-1 - value % len(self.pages)][side] if self.pages else "beginning"
        return datetime.fromtimestamp(self.now.wall / 1e9, timezone.utc) + timedelta(seconds=value)

    def fetch(self, number: int, group: str | None, limits: Sequence[int], bound: int | None) -> None:
        slot = self.slots[number]
        self._fetch(slot, group, self._demand(slot, group, limits, bound), [])

    def _demand(self, slot: Slot, group: str | None, limits: Sequence[int], bound: int | None) -> Mapping[int, Demand]:
        ids = [interest.id for interest in slot.interests[group]]
        return {id: Demand(limits[i % len(limits)] if limits else 0, bound) for i, id in enumerate(ids)}

    def _fetch(self, slot: Slot, group: str | None, demand: Mapping[int, Demand], handed: Sequence[Fetched]) -> None:
        """``handed``: what the store has fetched already."""
        mine, theirs = slot.readers[group]
        is_open = self.memory.is_open(mine)
        expected = self.memory.fetch(mine, demand, self.now)
        found: list[Delivery] = []
        fetched = handed[0] if handed else self.sql(slot.store, lambda store: store.fetch(theirs, demand, self.now))
        while True:
            self.same("is open", is_open, fetched.open)
            found += fetched.deliveries
            if not fetched.again:
                break
            left = {
                id: Demand(wanted.limit - sum(d.interest == id for d in found), wanted.more_urgent_than)
                for id, wanted in demand.items()
            }
            fetched = self.sql(slot.store, lambda store: store.fetch(theirs, left, self.now))  # noqa: B023
        expected, found = _in_order(expected), _in_order(found)
        self.same("fetch", [_told(d) for d in expected], [_told(d) for d in found])
        slot.held += zip(expected, found, strict=True)
        del slot.held[:-KEPT_HELD]

    def seek(self, number: int, group: str | None, which: int, cursor: Any) -> None:
        slot = self.slots[number]
        mine, theirs = slot.readers[group]
        interest = slot.interests[group][which % len(slot.interests[group])].id
        self.both(
            lambda: self.memory.seek(mine, interest, self._cursor(cursor, 0), self.now),
            slot.store,
            lambda store: store.seek(theirs, interest, self._cursor(cursor, 1), self.now),
        )

    def leave(self, number: int, group: str | None) -> None:
        slot = self.slots[number]
        mine, theirs = slot.readers.pop(group)
        slot.interests[group] = []
        self.memory.close_reader(mine, self.now)
        self.sql(slot.store, lambda store: store.close_reader(theirs, self.now))

    def remove_group(self, group: str, channel: str | None) -> None:
        self.memory.remove(GroupRef(group, channel), self.now)
        self.sql(self.anybody(), lambda store: store.remove(GroupRef(group, channel), self.now))

    def remove_channel(self, channel: str) -> None:
        self.memory.remove(ChannelRef(channel), self.now)
        self.sql(self.anybody(), lambda store: store.remove(ChannelRef(channel), self.now))

    # Living

    def silence(self, number: int) -> None:
        slot = self.slots[number]
        self._lost(slot)
        self.memory.silence(slot.mine, self.now)
        slot.silent = True

    def resume(self, number: int) -> None:
        slot = self.slots[number]
        forgotten = slot.mine not in self.memory._owners
        self.memory.resume(slot.mine, self.now)
        known = self.sql(slot.store, lambda store: store.beat(slot.owner, self.now))
        self.same("forgotten", forgotten, not known)
        slot.silent = False
        if forgotten:
            slot.mine.lost.clear()
            slot.owner = self.sql(slot.store, lambda store: store.connect(f"slot{number}", "boot", self.now))
            self._subscribe_again(slot)

    def _subscribe_again(self, slot: Slot) -> None:
        for group, (mine, theirs) in list(slot.readers.items()):
            theirs.owner = slot.owner
            theirs.set((), {})
            interests = slot.interests[group]
            slot.interests[group] = []
            fresh = [Interest(id=each.id, pattern=each.pattern) for each in interests]
            if self.both(
                lambda mine=mine, fresh=fresh: self.memory.update(mine, fresh, self.now),  # type: ignore[misc]
                slot.store,
                lambda store, theirs=theirs, fresh=fresh: store.update(theirs, fresh, self.now),  # type: ignore[misc]
            ):
                slot.interests[group] = fresh

    def disconnect(self, number: int) -> None:
        slot = self.slots[number]
        self.memory.disconnect(slot.mine, self.now)
        self.sql(slot.store, lambda store: store.disconnect(slot.owner, self.now))
        self._replace(slot)

    def kill(self, number: int) -> None:
        """It died, and somebody else has seen that."""
        slot = self.slots[number]
        slot.mine.silent_since = self.now.mono - LIMITS.session_ttl
        self.memory.advance(self.now)
        self.sql(self.anybody(), lambda store: store.give_up(slot.owner, self.now))
        self._replace(slot)

    def _replace(self, slot: Slot) -> None:
        """What the next process of that place settles of the last one's is late."""
        fresh = self.slots[slot.number] = Slot(slot.number, self)
        fresh.late = [*slot.late, *slot.held][-KEPT_LATE:]

    def _lost(self, slot: Slot) -> None:
        """Compare which leases the two stores have told to be lost."""
        expected = sorted(delivery.lease for delivery in slot.mine.lost)  # type: ignore[type-var]
        slot.mine.lost.clear()
        connection = slot.store.connection
        told = connection.execute("SELECT count(*) FROM nc_lost WHERE owner = ?", (slot.owner,)).fetchone() != (0,)
        numbers = self.sql(slot.store, lambda store: store.take_lost(slot.owner)) if told else []
        assert len(expected) == len(numbers), f"lost leases: {len(expected)} expected, {len(numbers)} found"
        pairs = {theirs.lease.number: mine.lease for mine, theirs in (*slot.held, *slot.late)}  # type: ignore[attr-defined]
        known = {pairs[number] for number in numbers if number in pairs}
        assert known <= set(expected), f"lost leases: {expected} expected, {known} found"

    # Replies

    def _address(self, number: int) -> str:
        return f"{INBOX_PREFIX}slot{number}"

    def inbox(self, number: int) -> None:
        slot = self.slots[number]
        self.memory.open_inbox(slot.mine, address=self._address(number))
        self.sql(slot.store, lambda store: store.open_inbox(self._address(number), slot.owner))

    def take(self, number: int) -> None:
        address = self._address(number)
        expected = self.memory.take_replies(address, self.now)
        self.same("replies", expected, self.sql(self.anybody(), lambda store: store.take_replies(address)))

    def close_inbox(self, number: int) -> None:
        self.memory.close_inbox(self._address(number))
        self.sql(self.anybody(), lambda store: store.close_inbox(self._address(number)))

    # Time

    def wait(self, seconds: float) -> None:
        step = round(seconds * SECOND)
        self._at(Moment(self.now.mono + step, self.now.wall + step))

    def jump(self, seconds: float) -> None:
        self._at(Moment(self.now.mono, self.now.wall + round(seconds * SECOND)))

    def _at(self, now: Moment) -> None:
        self.now = now
        self.memory.advance(now)  # type: ignore[arg-type]
        for slot in self.slots:
            if not slot.silent:
                assert self.sql(slot.store, lambda store, slot=slot: store.beat(slot.owner, now))  # type: ignore[misc]
        while self.sql(self.anybody(), lambda store: store.advance(now)):
            pass

    # Looking in

    def browse(self, channel: str, cursor: Any, limit: int) -> None:
        store = self.anybody()
        pages = self.both(
            lambda: self.memory.browse(channel, self._cursor(cursor, 0), limit, self.now),
            store,
            lambda store: store.browse(channel, self._cursor(cursor, 1), limit, self.now),
        )
        if pages is not None:
            mine, theirs = pages
            self.same("page", list(mine.envelopes), list(theirs.envelopes))
            self.same("more", mine.next is None, theirs.next is None)
            if mine.next is not None:
                self.pages.append((mine.next, theirs.next))


def _in_order(deliveries: Sequence[Delivery]) -> list[Delivery]:
    """Neighbours that are one message, in the order of their interests."""
    ordered: list[Delivery] = []
    for delivery in deliveries:
        place = len(ordered)
        while place and _twin(ordered[place - 1], delivery) and ordered[place - 1].interest > delivery.interest:
            place -= 1
        ordered.insert(place, delivery)
    return ordered


def _twin(one: Delivery, other: Delivery) -> bool:
    return one.envelope == other.envelope


def _told(delivery: Delivery) -> tuple[Any, ...]:
    return delivery.interest, delivery.attempt, delivery.suspect, delivery.envelope


def run(ops: Sequence[Op], make: Callable[[], Twins] = Twins) -> str | None:
    """What went wrong, and where; None when nothing did."""
    twins = make()
    try:
        for at, op in enumerate(ops):
            try:
                twins.step(op)
            except Exception as error:  # whatever it is, it is to be shrunk
                return f"step {at}, {op}: {type(error).__name__}: {error}"
    finally:
        twins.close()
    return None
