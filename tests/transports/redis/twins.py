"""One script, told to the reference and to the Redis transport at the same moments; every answer is compared.

Clients run in one event loop against a real server, which is told what time it is. Nothing happens by itself: no beats,
no bells. What a bell would say is made up for by looking everywhere before every fetch.

Where the two may differ is said here and nowhere else:

* Which of several channels' messages a fetch takes when it cannot have all: limits are wide where a pattern covers
  several channels, and what came is compared channel by channel.
* The transport trims a little at a time: ``tidy`` is called before anything is compared.
* Cursors for the next page and lease tokens are each store's own.
* A cursor that is the id of several messages of one channel, or of one that was stored together with those of other
  channels, whose order the transport does not know: not asked.
* What a broadcast has in flight when it ends: settled before, here.
* Clients that were silent for longer than their session lasts are replaced by new ones.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest.mock import patch

from neuralcore._core import Clock
from neuralcore.messaging.channel import ChannelConfig, Retention
from neuralcore.messaging.transport import (
    ChannelRef,
    Delivery,
    Demand,
    Envelope,
    Group,
    GroupRef,
    Interest,
    Outcome,
    PublishStatus,
    Settlement,
    SettleStatus,
)
from neuralcore.testing.conformance.runtime import BareRuntime
from neuralcore.testing.memory import MemoryStore
from neuralcore.testing.memory.records import Moment
from neuralcore_transports.redis import RedisTransport
from neuralcore_transports.redis.bells import Bells
from neuralcore_transports.redis.keeper import Keeper
from neuralcore_transports.redis.tidying import Tidying
from tests.transports.histories import CHANNELS, GROUPS, LATE, SLOTS, Op

__all__ = ["run"]

SECOND = 10**9
START = 1_750_000_000_000
LEASE, SESSION = 3.0, 8.0
WIDE = 100
KEPT_HELD = 40
KEPT_LATE = 4

_Pair = tuple[Delivery, Delivery]
_numbers = itertools.count()


class Runtime(BareRuntime):
    def __init__(self) -> None:
        super().__init__(Clock())
        self.gone: list[Delivery] = []

    def lost(self, deliveries: Sequence[Delivery]) -> None:
        self.gone += deliveries


class Slot:
    """A client in both stores."""

    def __init__(self, number: int, twins: Twins) -> None:
        self.number = number
        self.twins = twins
        self.mine = twins.memory.connect(f"slot{number}")
        self.runtime = Runtime()
        self.theirs = RedisTransport.from_url(
            f"{twins.url}?prefix={twins.prefix}&lease={LEASE}&session_ttl={SESSION}&dedup_window=10"
        )
        self.silent: int | None = None
        self.held: list[_Pair] = []
        self.late: list[_Pair] = []
        self.readers: dict[str | None, tuple[Any, Any]] = {}
        self.interests: dict[str | None, list[Interest]] = {group: [] for group in GROUPS}
        self._ids = 0

    async def open(self) -> Slot:
        await self.theirs.open(self.runtime)
        self.theirs.client.clock = self.twins.ms
        return self

    async def reader(self, group: str | None) -> tuple[Any, Any]:
        if group not in self.readers:
            mine = self.twins.memory.reader(self.mine, group)
            self.readers[group] = (mine, await self.theirs.consume(Group(group)))
        return self.readers[group]

    def wanted(self, group: str | None, patterns: Sequence[str], start: Any) -> list[Interest]:
        known = {interest.pattern: interest for interest in self.interests[group]}
        return [known.get(pattern) or self._interest(pattern, start) for pattern in patterns]

    def _interest(self, pattern: str, start: Any) -> Interest:
        self._ids += 1
        return Interest(id=self._ids, pattern=pattern, start=start)

    def one_of(self, which: int) -> list[_Pair]:
        found = self.late if which >= LATE else self.held
        return [found[-1 - which % LATE % len(found)]] if found else []

    def put_aside(self, pairs: Sequence[_Pair], outcomes: Sequence[Outcome], settled: Sequence[SettleStatus]) -> None:
        for pair, outcome, status in zip(pairs, outcomes, settled, strict=True):
            if pair in self.held and outcome is not Outcome.ATTEMPT and status is not SettleStatus.SKIPPED:
                self.held.remove(pair)
                self.late.append(pair)
        del self.late[:-KEPT_LATE]


class Twins:
    def __init__(self, url: str) -> None:
        self.url = url
        self.prefix = f"twins{next(_numbers)}"
        self.memory = MemoryStore(lease=LEASE, max_hold=1e8, dedup_window=10.0, session_ttl=SESSION)
        self.ms = START
        self.names: Counter[tuple[str, str]] = Counter()
        self.mixed: set[str] = set()
        """Messages that were stored together with those of other channels."""
        self.pages: list[tuple[str, str]] = []
        self.slots: list[Slot] = []
        self.dead: dict[str, int] = {}
        """Sessions that nobody extends any more, and since when."""

    @property
    def now(self) -> Moment:
        return Moment(self.ms * 1_000_000, self.ms * 1_000_000)

    async def open(self) -> None:
        self.slots = [await Slot(number, self).open() for number in SLOTS]

    async def close(self) -> None:
        for slot in self.slots:
            await slot.theirs.close()

    @property
    def anybody(self) -> Slot:
        return next((slot for slot in self.slots if slot.silent is None), self.slots[0])

    async def step(self, op: Op) -> None:
        verb, *what = op
        if verb in ("jump", "inbox", "take", "close_inbox"):
            return
        if verb in ("commit", "join", "fetch", "seek", "leave", "silence", "disconnect", "kill", "resume"):
            slot = self.slots[what[0]]
            if (slot.silent is not None) != (verb == "resume"):
                return
            if verb in ("fetch", "leave") and what[1] not in slot.readers:
                return
            if verb == "seek" and not slot.interests[what[1]]:
                return
        self.ms += 1  # so that times tell steps apart
        self._tell_time()
        await getattr(self, verb)(*what)
        await self.check()

    def _tell_time(self) -> None:
        for slot in self.slots:
            slot.theirs.client.clock = self.ms
        self.memory.advance(self.now)

    async def check(self) -> None:
        live = self.anybody.theirs
        names = await live.channels()
        for channel in names:
            await live._tidying.tidy(live._layout.base(channel))
        self.same("channels", sorted(self.memory.channels()), sorted(names))
        expected, found = self.memory.stats(self.now), await live.stats()
        self.same("stats", _numbers_of(expected), _numbers_of(found))
        for slot in self.slots:
            if slot.silent is None:
                await self._lost(slot)
                await asyncio.gather(*slot.theirs.background._tasks)
                self.same("complaints", [], slot.runtime.events)

    async def _lost(self, slot: Slot) -> None:
        for base, group in slot.theirs.leases.places():
            await slot.theirs._news.find_lost(base, group)
        expected = {id(delivery) for delivery in slot.mine.lost}
        slot.mine.lost.clear()
        found = set(map(id, slot.runtime.gone))
        slot.runtime.gone.clear()
        pairs = [*slot.held, *slot.late]
        told = [theirs.envelope.id for mine, theirs in pairs if id(mine) in expected]
        said = [theirs.envelope.id for mine, theirs in pairs if id(theirs) in found]
        self.same("lost", told, said)

    def same(self, what: str, expected: Any, found: Any) -> None:
        assert found == expected, f"{what}: the reference says\n  {expected}\nRedis says\n  {found}"

    async def both(self, mine: Any, theirs: Any) -> tuple[Any, Any] | None:
        try:
            expected, error = mine(), None
        except ValueError as refused:
            error = refused
        try:
            found, other = await theirs, None
        except ValueError as refused:
            other = refused
        assert (error is None) == (other is None), f"the reference raises {error!r}, Redis {other!r}"
        return None if error is not None else (expected, found)

    # Publishing and settling

    async def declare(self, channel: str, fields: dict[str, Any]) -> None:
        retention = fields.get("retention")
        config = ChannelConfig(channel, **{**fields, "retention": Retention(**retention) if retention else None})
        self.memory.declare(config, self.now)
        await self.anybody.theirs.declare(config)

    async def commit(
        self, number: int, publishes: Sequence[dict[str, Any]], settlements: Sequence[tuple[Any, ...]]
    ) -> None:
        slot = self.slots[number]
        envelopes = [self._envelope(**fields) for fields in publishes if "inbox" not in fields]
        settlements = [each for each in settlements if slot.one_of(each[0])]
        pairs = [slot.one_of(which)[0] for which, *_ in settlements]
        mine, theirs = (
            [
                Settlement(pair[side], Outcome(outcome), round(delay * SECOND), pass_key, self._after(after, envelopes))
                for pair, (_, outcome, delay, pass_key, after) in zip(pairs, settlements, strict=True)
            ]
            for side in (0, 1)
        )
        if len({envelope.channel for envelope in envelopes}) > 1:
            self.mixed.update(envelope.id for envelope in envelopes)
        expected = self.memory.commit(envelopes, mine, self.now)
        found = await slot.theirs.commit(envelopes, theirs)
        self.same("published", list(expected.published), list(found.published))
        self.same("settled", list(expected.settled), list(found.settled))
        slot.put_aside(pairs, [Outcome(outcome) for _, outcome, *_ in settlements], found.settled)
        for envelope, status in zip(envelopes, found.published, strict=True):
            if status is PublishStatus.STORED:
                self.names.update((envelope.channel, name) for name in {envelope.id, envelope.dedup_key or envelope.id})

    def _after(self, after: int | None, envelopes: Sequence[Envelope]) -> int | None:
        return after if after is not None and after < len(envelopes) else None

    def _envelope(
        self, *, n: int, channel: str, size: int = 0, delay: float = 0.0, not_before: float | None = None, **fields: Any
    ) -> Envelope:
        return Envelope(
            id=f"m{n}",
            channel=channel,
            body=b"." * size,
            delay_ns=round(delay * SECOND),
            not_before_ns=None if not_before is None else self.now.wall + round(not_before * SECOND),
            **fields,
        )

    # Consuming

    async def join(self, number: int, group: str | None, patterns: Sequence[str], start: Any) -> None:
        slot = self.slots[number]
        mine, theirs = await slot.reader(group)
        if group is None:
            await self._settle_broadcasts(slot, patterns)
        wanted = [slot.wanted(group, patterns, self._cursor(start, side)) for side in (0, 1)]
        wanted[1] = [
            Interest(id=one.id, pattern=one.pattern, start=other.start)
            for one, other in zip(wanted[0], wanted[1], strict=True)
        ]
        if await self.both(lambda: self.memory.update(mine, wanted[0], self.now), theirs.update(wanted[1])):
            slot.interests[group] = wanted[0]

    async def _settle_broadcasts(self, slot: Slot, patterns: Sequence[str]) -> None:
        """Of those that are about to end: the reference counts what they have in flight, Redis forgets it."""
        ended = {interest.id for interest in slot.interests[None] if interest.pattern not in patterns}
        pairs = [pair for pair in slot.held if pair[0].interest in ended and _is_broadcast(pair[1])]
        mine, theirs = ([Settlement(pair[side], Outcome.ACK) for pair in pairs] for side in (0, 1))
        expected = self.memory.commit((), mine, self.now)
        found = await slot.theirs.commit((), theirs)
        self.same("settled", list(expected.settled), list(found.settled))
        slot.put_aside(pairs, [Outcome.ACK] * len(pairs), found.settled)

    def _cursor(self, cursor: Any, side: int) -> Any:
        if not isinstance(cursor, tuple):
            return cursor
        kind, value = cursor
        if kind == "id":
            several = f"m{value}" in self.mixed or any(self.names[channel, f"m{value}"] > 1 for channel in CHANNELS)
            return "beginning" if several else f"m{value}"
        if kind == "place":
            return self.pages[-1 - value % len(self.pages)][side] if self.pages and not self.mixed else "beginning"
        return datetime.fromtimestamp(self.ms / 1e3, timezone.utc) + timedelta(seconds=value)

    async def fetch(self, number: int, group: str | None, limits: Sequence[int], bound: int | None) -> None:
        slot = self.slots[number]
        mine, theirs = slot.readers[group]
        wide = len(self.memory.channels()) > 1 and any(
            "*" in i.pattern or ">" in i.pattern for i in slot.interests[group]
        )
        ids = [interest.id for interest in slot.interests[group]]
        demand = {
            id: Demand(WIDE if wide else limits[i % len(limits)] if limits else 0, bound) for i, id in enumerate(ids)
        }
        expected = self.memory.fetch(mine, demand, self.now)
        theirs.look_again(channels=True)
        found = list(await theirs.fetch(demand, 0))
        ordered, other = _by_channel(expected), _by_channel(found)
        self.same("fetch", [_told(d) for d in ordered], [_told(d) for d in other])
        slot.held += zip(ordered, other, strict=True)
        del slot.held[:-KEPT_HELD]

    async def seek(self, number: int, group: str | None, which: int, cursor: Any) -> None:
        slot = self.slots[number]
        mine, theirs = slot.readers[group]
        interest = slot.interests[group][which % len(slot.interests[group])].id
        theirs.look_again(channels=True)
        await theirs.find_places()
        await self.both(
            lambda: self.memory.seek(mine, interest, self._cursor(cursor, 0), self.now),
            theirs.seek(interest, self._cursor(cursor, 1)),
        )

    async def leave(self, number: int, group: str | None) -> None:
        slot = self.slots[number]
        if group is None:
            await self._settle_broadcasts(slot, ())
        mine, theirs = slot.readers.pop(group)
        slot.interests[group] = []
        self.memory.close_reader(mine, self.now)
        await theirs.close()

    async def remove_group(self, group: str, channel: str | None) -> None:
        self.memory.remove(GroupRef(group, channel), self.now)
        await self.anybody.theirs.remove(GroupRef(group, channel))

    async def remove_channel(self, channel: str) -> None:
        self.memory.remove(ChannelRef(channel), self.now)
        await self.anybody.theirs.remove(ChannelRef(channel))

    # Living

    async def silence(self, number: int) -> None:
        slot = self.slots[number]
        if sum(each.silent is None for each in self.slots) == 1:
            return
        await self._lost(slot)
        self.memory.silence(slot.mine, self.now)
        slot.silent = self.ms
        self.dead[slot.theirs.client.session] = self.ms

    async def resume(self, number: int) -> None:
        slot = self.slots[number]
        silent, slot.silent = slot.silent or 0, None
        if self.ms - silent >= SESSION * 1000:
            await self._replace(slot)
            return
        self.memory.resume(slot.mine, self.now)
        del self.dead[slot.theirs.client.session]

    async def disconnect(self, number: int) -> None:
        slot = self.slots[number]
        self.memory.disconnect(slot.mine, self.now)
        await slot.theirs.close()
        await self._replace(slot)

    async def kill(self, number: int) -> None:
        """It died, and its session is over."""
        slot = self.slots[number]
        del slot.held[:]
        slot.mine.silent_since = self.now.mono - round(SESSION * SECOND)
        self.memory.advance(self.now)
        await self._replace(slot)
        await self._reclaim(slot.theirs.client.session, ended=True)

    async def _replace(self, slot: Slot) -> None:
        await slot.theirs._servers.close()
        slot.theirs._upkeep.cancel()
        fresh = self.slots[slot.number] = await Slot(slot.number, self).open()
        fresh.late = []

    # Time

    async def wait(self, seconds: float) -> None:
        self.ms += round(seconds * 1000)
        self._tell_time()
        for session, since in list(self.dead.items()):
            late = (self.ms - since) / 1000
            if late >= LEASE:
                await self._reclaim(session, ended=late >= SESSION)

    async def _reclaim(self, session: str, *, ended: bool) -> None:
        """As the members of all groups would, if each had any."""
        client = self.anybody.theirs.client
        for channel in await client.channels():
            await client.channel("reclaim", client.layout.base(channel), session, int(ended))
        if ended:
            await client.registry("end", session)

    # Looking in

    async def browse(self, channel: str, cursor: Any, limit: int) -> None:
        pages = await self.both(
            lambda: self.memory.browse(channel, self._cursor(cursor, 0), limit, self.now),
            self.anybody.theirs.browse(channel, self._cursor(cursor, 1), limit),
        )
        if pages is not None:
            mine, theirs = pages
            self.same("page", [_plain(e) for e in mine.envelopes], [_plain(e) for e in theirs.envelopes])
            self.same("more", mine.next is None, theirs.next is None)
            if mine.next is not None:
                self.pages.append((mine.next, theirs.next))


def _numbers_of(stats: Any) -> dict[str, Any]:
    return {name: (each.depth, each.in_flight, each.stored, dict(each.lag)) for name, each in stats.items()}


def _by_channel(deliveries: Sequence[Delivery]) -> list[Delivery]:
    """Channel by channel, and interest by interest, each in the order in which it came."""
    found: defaultdict[tuple[str, int], list[Delivery]] = defaultdict(list)
    for delivery in deliveries:
        found[delivery.envelope.channel, delivery.interest].append(delivery)
    return [delivery for place in sorted(found) for delivery in found[place]]


def _is_broadcast(delivery: Delivery) -> bool:
    return delivery.lease.group.startswith("_broadcast.")  # type: ignore[attr-defined]


def _plain(envelope: Envelope) -> tuple[Any, ...]:
    return envelope.id, envelope.channel, envelope.body, envelope.priority, envelope.key


def _told(delivery: Delivery) -> tuple[Any, ...]:
    return delivery.interest, delivery.attempt, delivery.suspect, *_plain(delivery.envelope)


async def _run(ops: Sequence[Op], url: str) -> str | None:
    twins = Twins(url)
    with (
        patch.object(Keeper, "start", lambda self: None),
        patch.object(Bells, "open", _nothing),
        patch.object(Tidying, "keep", _nothing),
    ):
        await twins.open()
        try:
            for at, op in enumerate(ops):
                try:
                    await twins.step(op)
                except Exception as error:  # whatever it is, it is to be shrunk
                    return f"step {at}, {op}: {type(error).__name__}: {error}"
        finally:
            await twins.close()
    return None


async def _nothing(self: Any) -> None: ...


def run(ops: Sequence[Op], url: str) -> str | None:
    """What went wrong, and where; None when nothing did."""
    return asyncio.run(_run(ops, url))
