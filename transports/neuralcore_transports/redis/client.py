"""What a client asks the servers for, in the words of the transport contract."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec

from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.errors import NotStored, TransportError, Unavailable
from neuralcore.messaging.names import INBOX_PREFIX, matches, validate_channel
from neuralcore.messaging.transport import CommitResult, Envelope, Outcome, PublishStatus, Settlement, SettleStatus
from neuralcore_transports.redis.committing import MOST_FIELDS, PUBLISHED, SETTLED, Parts, publish_parts, settle_parts
from neuralcore_transports.redis.durability import WAITAOF_SINCE
from neuralcore_transports.redis.errors import ServerBusy
from neuralcore_transports.redis.known import Known
from neuralcore_transports.redis.layout import Layout
from neuralcore_transports.redis.options import RedisOptions
from neuralcore_transports.redis.pipe import Broken, NotSent
from neuralcore_transports.redis.scripts import CHANNEL, COMMIT, FETCH, PEEK, REGISTRY, SETTLE, Script
from neuralcore_transports.redis.servers import Servers

__all__ = ["Client", "Fetched", "Found"]

_FIRST_WAIT: Final = 0.02
_LONGEST_WAIT: Final = 0.5
_UNCHANGED: Final = ("", "", "", "", "", "")


class Found(NamedTuple):
    """One entry that was handed out, as the server says it."""

    priority: int
    entry: bytes
    failed: int
    suspect: int
    fields: Sequence[bytes]
    tried: int


@dataclass(frozen=True, slots=True)
class Fetched:
    found: Sequence[Found] = ()
    due: float | None = None
    """Seconds until something becomes due."""
    more: bool = False
    state: str = "ok"
    """Or ``no group``, ``no channel``: the server does not know it; ``stale``: leases were taken from that consumer."""
    recreated: int = 0
    """Streams on which the group was missing."""
    trimmed: int = 0
    """Entries that somebody else has deleted though they were pending."""
    turn: int = 0
    """Which of all that this consumer was handed: they are to be taken in this order. 0 when it was handed nothing."""


@dataclass(slots=True)
class _Commit:
    """One on its way."""

    published: list[PublishStatus]
    settled: list[SettleStatus]
    reasons: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Step:
    """A part of a commit that one server does at once; each item with its place in the commit."""

    publishes: list[tuple[int, Envelope]]
    settlements: list[tuple[int, Settlement]]


class Client:
    """On one loop."""

    def __init__(self, options: RedisOptions, servers: Servers, layout: Layout, session: str, known: Known) -> None:
        self.options = options
        self.servers = servers
        self.layout = layout
        self.session = session
        self.known = known
        self.clock: int | str = ""
        """Milliseconds, where it is not to be what the server's clock says: tests let time pass by it."""
        self._source = f"urn:neuralcore:bus:{session}"
        self._random = random.Random()
        self._commits = itertools.count()
        self.configs: dict[str, ChannelConfig] = {}
        """What channels were declared to be: they are made so again, if the server forgets them."""
        self._making: dict[str, asyncio.Future[None]] = {}

    # Asking

    async def channel(self, what: str, base: str, *parts: str | bytes | int) -> Any:
        """Raises TransportError; Unavailable when nobody knows whether it was done, which may be repeated."""
        return await self.ask(CHANNEL, f"{base}:meta", self.clock, self.layout.prefix, what, base, *parts)

    async def registry(self, what: str, *parts: str | bytes | int) -> Any:
        return await self.ask(
            REGISTRY, f"{self.layout.registry}:channels", self.clock, self.layout.prefix, what, *parts
        )

    async def ask(self, script: Script, key: str, *parts: str | bytes | int) -> Any:
        try:
            return (await self.servers.script("work", script, (key,), parts))[0]
        except (NotSent, Broken) as error:
            raise Unavailable("redis", f"{self.options.shown}: {error}") from error

    async def call(self, key: str, *command: str | bytes | int) -> Any:
        """One command on the server that has the key. Raises TransportError."""
        try:
            return await self.servers.call("work", key, *command)
        except (NotSent, Broken) as error:
            raise Unavailable("redis", f"{self.options.shown}: {error}") from error

    # Channels

    async def ensure(self, channel: str, config: ChannelConfig | None = None) -> None:
        """Have the channel there; with a ``config``, have it be so. Raises TransportError."""
        if config is not None:
            await self._make(channel, config)
            return
        making = self._making.get(channel)
        if making is None:
            making = self._making[channel] = asyncio.ensure_future(self._make(channel, None))
            making.add_done_callback(lambda _: self._making.pop(channel, None))
        await asyncio.shield(making)

    async def _make(self, channel: str, config: ChannelConfig | None) -> None:
        if config is not None:
            self.configs[channel] = config
        known = self.configs.get(channel)
        patterns = _pairs(await self.registry("add", channel))
        wanted: list[str] = []
        for its, state in patterns:
            pattern, group = its.split("\n", 1)
            if matches(pattern, channel):
                wanted += (group, state[1:].partition("\n")[0])
        reply = await self.channel(
            "create",
            self.layout.base(channel),
            os.urandom(8).hex(),
            *(_UNCHANGED if known is None else _configured(known)),
            round(self.options.dedup_window * 1000),
            int(config is not None),
            *wanted,
        )
        self.known.see(channel, reply[1], reply[2], None)

    async def channels(self) -> list[str]:
        return [name.decode() for name in await self.registry("channels")]

    async def has_group(self, channel: str, group: str) -> bool:
        base = self.layout.base(channel)
        found = await self.call(f"{base}:meta", "HGET", f"{base}:meta", "groups")
        return found is not None and group in msgspec.msgpack.decode(found)[::2]

    # Committing

    async def commit(
        self, publishes: Sequence[Envelope], settlements: Sequence[Settlement], holds: Callable[[Settlement], bool]
    ) -> CommitResult:
        """Raises NotStored, or Unavailable when nothing is known of any item."""
        commit = _Commit(
            [PublishStatus.REFUSED] * len(publishes),
            [SettleStatus.LEASE_LOST] * len(settlements),
        )
        good = [(index, each) for index, each in enumerate(publishes) if self._sendable(index, each, commit)]
        held = frozenset(index for index, each in enumerate(settlements) if holds(each))
        able: list[tuple[int, Settlement]] = []
        for index, each in enumerate(settlements):
            if each.after in commit.reasons:
                commit.settled[index] = SettleStatus.SKIPPED
            else:
                able.append((index, each))
        if not self.options.cluster:
            await self._deliver(good, able, held, commit)
            return CommitResult(commit.published, commit.settled, commit.reasons)
        steps, later = self._by_slots(good, able)
        errors = await asyncio.gather(*(self._try(step, held, commit, len(steps)) for step in steps))
        if steps and all(errors):
            raise next(error for error in errors if error)
        steps, _ = self._by_slots((), [each for each in later if self._follows(*each, commit)], checked=True)
        await asyncio.gather(*(self._try(step, held, commit, len(steps) + 1) for step in steps))
        return CommitResult(commit.published, commit.settled, commit.reasons)

    def _by_slots(
        self,
        publishes: Sequence[tuple[int, Envelope]],
        settlements: Sequence[tuple[int, Settlement]],
        *,
        checked: bool = False,
    ) -> tuple[list[_Step], list[tuple[int, Settlement]]]:
        """What one server can do in one step each; and what has to follow, as it depends on a publish elsewhere."""
        steps: dict[int, _Step] = {}
        slots: dict[int, int] = {}
        for index, envelope in publishes:
            slots[index] = slot = self.servers.slot(self.layout.base(envelope.channel))
            steps.setdefault(slot, _Step([], [])).publishes.append((index, envelope))
        later = []
        for index, settlement in settlements:
            slot = self.servers.slot(self.layout.base(settlement.delivery.envelope.channel))
            if settlement.after is not None and not checked and slots.get(settlement.after, slot) != slot:
                later.append((index, settlement))
                continue
            which = msgspec.structs.replace(settlement, after=None) if checked else settlement
            steps.setdefault(slot, _Step([], [])).settlements.append((index, which))
        return list(steps.values()), later

    def _follows(self, index: int, settlement: Settlement, commit: _Commit) -> bool:
        assert settlement.after is not None
        if commit.published[settlement.after] in (PublishStatus.STORED, PublishStatus.DUPLICATE):
            return True
        commit.settled[index] = SettleStatus.SKIPPED
        return False

    async def _try(self, step: _Step, held: Container[int], commit: _Commit, steps: int) -> Exception | None:
        """With other steps beside it, what is not known is said item by item."""
        try:
            await self._deliver(step.publishes, step.settlements, held, commit)
        except TransportError as error:
            if steps == 1:
                raise
            for index, _ in step.publishes:
                commit.published[index] = PublishStatus.UNKNOWN
            for index, _ in step.settlements:
                commit.settled[index] = SettleStatus.UNKNOWN
            return error
        return None

    def _sendable(self, index: int, envelope: Envelope, commit: _Commit) -> bool:
        try:
            if not envelope.channel.startswith(INBOX_PREFIX):
                validate_channel(envelope.channel, internal=True)
        except ValueError as error:
            commit.reasons[index] = str(error)
            return False
        if 2 * len(envelope.headers) + 30 > MOST_FIELDS:
            commit.reasons[index] = f"it has {len(envelope.headers)} headers; Redis takes {MOST_FIELDS // 2 - 15}"
            return False
        return True

    async def _deliver(
        self,
        publishes: Sequence[tuple[int, Envelope]],
        settlements: Sequence[tuple[int, Settlement]],
        held: Container[int],
        commit: _Commit,
    ) -> None:
        """In one step; tried again until it is known what has become of it, or patience is over."""
        publishing, order, channels = publish_parts(self.layout, self._source, publishes)
        order_of = {index: place for place, index in enumerate(order, 1)}
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.options.patience
        sent, wait = False, _FIRST_WAIT
        name = self._name(publishes, settlements)
        while True:
            settling, settle_order = settle_parts(settlements, held, order_of, again=sent)
            marks = [self.known.mark(channel) for channel in channels]
            head: Parts = [self.clock, self.layout.prefix, round(self.options.dedup_window * 1000), name]
            keys = [f"{self.layout.base(channel)}:meta" for channel in channels]
            if not keys:
                keys = [self._key(publishes, settlements)]
            try:
                reply, waited = await self.servers.script(
                    "commit",
                    COMMIT if publishes else SETTLE,
                    keys,
                    head + publishing + settling,
                    self._wait(order),
                )
            except NotSent as error:
                failure: Exception = error
            except Broken as error:
                failure, sent = error, True
            except ServerBusy as error:
                if error.lasting and not sent:
                    raise NotStored("redis", error.reason) from error
                failure = error
            else:
                if reply[0] == b"ok":
                    self._note(commit, order, reply[1], settle_order, reply[2], repeated=sent)
                    for channel, mark, (incarnation, found, left) in zip(channels, marks, reply[3], strict=True):
                        self.known.see(channel, incarnation, found, mark, left)
                    self._check_waited(waited)
                    return
                try:
                    await self._make_missing(reply[1:])
                    continue
                except Unavailable as error:
                    failure = error
            if loop.time() + wait > deadline:
                reason = f"{self.options.shown}: {failure}"
                raise (Unavailable if sent else NotStored)("redis", reason) from failure
            await asyncio.sleep(wait * self._random.uniform(0.5, 1))
            wait = min(2 * wait, _LONGEST_WAIT)

    def _name(self, publishes: Sequence[tuple[int, Envelope]], settlements: Sequence[tuple[int, Settlement]]) -> str:
        """By which the server knows a repetition: acknowledgements and publishes are done once anyway."""
        if all(settlement.outcome is Outcome.ACK for _, settlement in settlements):
            return ""
        key = self._key(publishes, settlements).removesuffix(":meta")
        return f"{key}:answer:{self.session}.{next(self._commits)}"

    def _key(self, publishes: Sequence[tuple[int, Envelope]], settlements: Sequence[tuple[int, Settlement]]) -> str:
        """What decides the server where nothing goes to a channel."""
        channels = [each.channel for _, each in publishes] + [each.delivery.envelope.channel for _, each in settlements]
        return f"{self.layout.base(channels[0])}:meta" if channels else f"{self.layout.registry}:channels"

    def _wait(self, order: Sequence[int]) -> tuple[str | int, ...]:
        options = self.options
        milliseconds = round(options.timeout * 500)
        if not order or (options.durability == "server" and not options.replicas):
            return ()
        if options.durability == "disk" and self.servers.version() >= WAITAOF_SINCE:
            return "WAITAOF", 1, options.replicas, milliseconds
        return ("WAIT", options.replicas, milliseconds) if options.replicas else ()

    def _check_waited(self, waited: Any) -> None:
        """Raises Unavailable: it is stored, but not as durably as was asked for."""
        if waited is None:
            return
        disk, replicas = waited if isinstance(waited, list) else (1, waited)
        if disk < 1 or replicas < self.options.replicas:
            raise Unavailable(
                "redis",
                f"{self.options.shown}: the message is stored, but in time "
                + (f"only {replicas} of {self.options.replicas} replicas have it" if disk else "not on disk"),
            )

    async def _make_missing(self, bases: Iterable[bytes]) -> None:
        channels = [self.layout.channel(base.decode()) for base in bases]
        for channel in channels:
            self.known.gone(channel)
        await asyncio.gather(*map(self.ensure, channels))

    def _note(
        self,
        commit: _Commit,
        order: Sequence[int],
        published: Sequence[int],
        settle_order: Sequence[int],
        settled: Sequence[int],
        *,
        repeated: bool,
    ) -> None:
        for index, status in zip(order, published, strict=True):
            found = PUBLISHED[status]
            if repeated and found is PublishStatus.DUPLICATE:
                found = PublishStatus.STORED  # by the first try, whose answer was lost
            commit.published[index] = found
        for index, verdict in zip(settle_order, settled, strict=True):
            commit.settled[index] = SETTLED[verdict]

    # Fetching

    async def fetch(
        self, channel: str, base: str, group: str, consumer: str, limit: int, credit: int, below: int, turn: int
    ) -> Fetched:
        """``credit``: how many it may be given in all, those of now and those that come, without asking again.
        ``turn``: of the last that it was handed, as far as it knows.

        Raises NotSent, Broken (something may have been handed out), TransportError.
        """
        mark = self.known.mark(channel)
        reply, _ = await self.servers.script(
            "fetch",
            FETCH,
            (f"{base}:meta",),
            (self.clock, self.layout.prefix, base, group, consumer, self.session, limit, credit, below, turn),
        )
        state = reply[0].decode()
        if state == "no channel":
            self.known.gone(channel)
            return Fetched(state=state)
        due, more, incarnation, last, (recreated, trimmed), turn, found = reply[1:]
        self.known.see(channel, incarnation, last, mark)
        return Fetched(
            [Found(*each) for each in found],
            None if due < 0 else due / 1000,
            bool(more),
            state,
            recreated,
            trimmed,
            turn,
        )

    async def peek(
        self, base: str, group: str, consumer: str, credit: int, below: int, turn: int
    ) -> tuple[int | None, float | None]:
        """The priority of what a fetch would begin with, and the seconds until something becomes due. Where there is
        nothing, it waits as after a fetch.
        """
        parts = (self.clock, self.layout.prefix, base, group, consumer, self.session, credit, below, turn)
        (head, due), _ = await self.servers.script("fetch", PEEK, (f"{base}:meta",), parts)
        return (None if head < 0 else head), (None if due < 0 else due / 1000)


def _configured(config: ChannelConfig) -> tuple[str | int, ...]:
    retention = config.retention
    return (
        _or_nothing(config.capacity),
        _or_nothing(config.overflow),
        _or_nothing(config.dedup_window and round(config.dedup_window * 1000)),
        _or_nothing(retention and retention.age and round(retention.age * 1000)),
        _or_nothing(retention and retention.count),
        _or_nothing(retention and retention.bytes),
    )


def _or_nothing(value: Any) -> Any:
    return "" if value is None else value


def _pairs(reply: Sequence[bytes]) -> list[tuple[str, str]]:
    flat = [part.decode() for part in reply]
    return list(zip(flat[::2], flat[1::2], strict=True))
