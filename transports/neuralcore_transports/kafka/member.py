"""One process's membership in a group: what is assigned to it, handed out, settled and committed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, TopicPartition

from neuralcore.messaging.transport import (
    Consumer,
    Cursor,
    Delivery,
    Demand,
    Interest,
    Outcome,
    Settlement,
    SettleStatus,
)
from neuralcore_transports.kafka.administration import Place
from neuralcore_transports.kafka.clients import log
from neuralcore_transports.kafka.committing import Committing
from neuralcore_transports.kafka.errors import group_is_refused, translated
from neuralcore_transports.kafka.partition import Partition
from neuralcore_transports.kafka.poller import Flow
from neuralcore_transports.kafka.records import Record
from neuralcore_transports.kafka.registry import Sought
from neuralcore_transports.kafka.serving import Answering, Serving
from neuralcore_transports.kafka.session import Session
from neuralcore_transports.kafka.together import Job
from neuralcore_transports.kafka.transactions import Transacting
from neuralcore_transports.kafka.window import Commit, Window
from neuralcore_transports.waiting import woken

if TYPE_CHECKING:
    from neuralcore_transports.kafka.transport import KafkaTransport

__all__ = ["Member"]

_JOINING: Final = 30.0
"""Seconds that a first fetch waits for its share of the partitions, beyond its own time."""
_PAUSE: Final = 0.3
"""Seconds after which what will not be handed out after all is looked for."""
_SHARING: Final = 5.0
"""Seconds that a new subscription waits for its share of the partitions."""

_NOWHERE: Final = -1
"""The epoch of no position."""

_ATTEMPT: Final = Outcome.ATTEMPT
_SETTLED: Final = SettleStatus.SETTLED
_LOST: Final = SettleStatus.LEASE_LOST


class Member(Consumer):
    """The loop's half; the thread's is the session, which tells it what the brokers say."""

    def __init__(self, transport: KafkaTransport, group: str) -> None:
        self._transport = transport
        self._group = group
        self._interests: Sequence[Interest] = ()
        self._answering = Answering(())
        self._answers: dict[str, int] = {}
        self._topics: set[str] = set()
        self._partitions: dict[Place, Partition] = {}
        self._flows: dict[Place, Flow] = {}
        self._serving = Serving()
        self._event = asyncio.Event()
        self._joined = False
        self._trouble: KafkaError | None = None
        """Of the whole group, not told to anybody yet."""
        self._refused: KafkaError | None = None
        """Why this process has no share of the partitions; brokers may say that once only."""
        self._ahead: dict[Partition, None] = {}
        """Of which more may be handed out than was."""
        self._pausing: asyncio.TimerHandle | None = None
        self._shared = asyncio.Event()
        """The partitions were dealt out since the last change of topics, or will not be."""
        self._closed = False
        self._leaving: asyncio.Task[None] | None = None
        self._handing_over: set[asyncio.Task[None]] = set()
        self._moving = asyncio.Event()
        """Partitions are being handed over."""
        self._session: Session | None = None
        """None as long as there is nothing to read."""
        self._committing = Committing(
            group,
            self._send,
            self._transact,
            more=self._may_have_more,
            settled=self._apply,
            count=transport.count,
        )
        self.together = self._committing.together
        self._transacting = Transacting(transport, transport.topics.transactions(transport.id, group))

    # What it reads

    async def update(self, interests: Sequence[Interest]) -> None:
        """Raises KafkaRefused, Unavailable."""
        if self._closed:
            return
        await self._transport.positions.attach(self._group, interests)
        self._interests = list(interests)
        self._answering = Answering(self._interests)
        if self.refresh():
            await self._share_of_the_work()
        if self._refused is not None and self._topics:
            self._trouble = None
            raise translated(self._refused, self._transport.options.shown)

    async def _share_of_the_work(self) -> None:
        """What is published from here on is handed out at once. Where the group takes longer, that is for later."""
        await woken(self._shared, _SHARING)

    def refresh(self) -> bool:
        """There may be other channels now; whether there are."""
        registry = self._transport.registrar.registry
        self._answers, topics = {}, set()
        for channel in registry.channels.values():
            interest = self._answering(channel.channel)
            if interest is not None and registry.position(self._group, channel.channel) is not None:
                self._answers[channel.channel] = interest.id
                topics.update(self._transport.registrar.topics_of(channel.channel)[1])
        more, changed = bool(topics - self._topics), topics != self._topics
        if changed:
            self._topics = topics
            self._shared.clear()
            self._read(sorted(topics))
        self.look_at_positions()
        self._event.set()
        return more

    def _read(self, topics: list[str]) -> None:
        if self._session is None and topics:
            self._session = Session(self._transport, self._group, self)
        if self._session is not None:
            self._session.subscribe(topics)

    # Fetching

    async def fetch(self, demand: Mapping[int, Demand], timeout: float) -> Sequence[Delivery]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            self._event.clear()
            now = self._transport.clock.monotonic_ns()
            found = self._serving.take(demand, self._answers, now)
            self._reserve()
            if found:
                return found
            if self._trouble is not None:
                error, self._trouble = self._trouble, None
                raise translated(error, self._transport.options.shown)
            joining = bool(self._topics) and not self._joined
            left = began + timeout + joining * _JOINING - loop.time()
            if left <= 0 or self._closed:
                return ()
            due = self._serving.due
            if due is not None:
                left = min(left, max(0, due - now) / 1e9)
            await woken(self._event, left)

    def _reserve(self) -> None:
        """Have the broker know in time what may be handed out next."""
        now = self._transport.clock.monotonic_ns()
        self._ahead.update(dict.fromkeys(self._serving.asked))
        for partition in self._serving.asked:
            if partition.owned and partition.wants_commit(now):
                self._committing.want(partition)
        if self._ahead and self._pausing is None:
            self._pausing = asyncio.get_running_loop().call_later(_PAUSE, self._paused)

    def _paused(self) -> None:
        """What will not be handed out after all is not to look as if it had been."""
        self._pausing = None
        now = self._transport.clock.monotonic_ns()
        for partition in list(self._ahead):
            if partition.owned and partition.wants_commit(now):
                self._committing.want(partition)
            if not partition.owned or partition.window.reserved <= partition.window.next:
                del self._ahead[partition]
        if self._ahead:
            self._pausing = asyncio.get_running_loop().call_later(_PAUSE, self._paused)

    # Settling

    async def settle(self, settlements: Sequence[Settlement]) -> list[SettleStatus]:
        """The broker hears of it at once, but only a suspect's attempt waits for its answer: whatever it does not hear
        of before this process dies comes again.
        """
        statuses, attempt = self._apply(settlements)
        if not attempt:
            return statuses
        if await self._is_confirmed():
            return statuses
        return [
            SettleStatus.UNKNOWN if settlement.outcome is _ATTEMPT else status
            for status, settlement in zip(statuses, settlements, strict=True)
        ]

    async def _is_confirmed(self) -> bool:
        """False also when partitions move: what their handlers settle, which is urgent then, may wait behind this."""
        confirmed = self._committing.confirmed()
        moving = asyncio.ensure_future(self._moving.wait())
        either: set[asyncio.Future[Any]] = {confirmed, moving}
        try:
            await asyncio.wait(either, timeout=self._transport.options.timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            moving.cancel()
        return confirmed.done()

    def _apply(self, settlements: Sequence[Settlement]) -> tuple[list[SettleStatus], bool]:
        """And whether an attempt is among them."""
        now = self._transport.clock.monotonic_ns()
        statuses, last = [], None
        attempt = False
        for settlement in settlements:
            partition: Partition = settlement.delivery.lease.partition  # type: ignore[attr-defined]
            if not partition.settle(settlement, now):
                statuses.append(_LOST)
                continue
            statuses.append(_SETTLED)
            attempt = attempt or settlement.outcome is _ATTEMPT
            if partition is not last:  # many of one come together
                last = partition
                self._serving.ready(partition)
                self._committing.want(partition)
        self._event.set()
        if self._closed:
            self._leave_when_empty()
        return statuses, attempt

    def _send(self, offsets: list[TopicPartition]) -> None:
        assert self._session is not None, "it has handed out what is committed"
        self._session.commit(offsets)

    async def _transact(self, jobs: list[Job], offsets: list[TopicPartition]) -> None:
        assert self._session is not None, "it has handed out what is committed"
        await self._transacting(jobs, partial(self._session.settled, offsets))

    # What the session tells; on the loop

    def told(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """What became of a commit."""
        self._committing.told(error, partitions)

    def assigned(self, found: Sequence[tuple[Flow, Partition]]) -> None:
        self._joined = True
        self._refused = None
        self._shared.set()
        for flow, partition in found:
            self._partitions[flow.key] = partition
            self._flows[flow.key] = flow
            self._committing.want(partition)
        self.look_at_positions()
        self._event.set()

    def arrived(self, partition: Partition, records: list[Record]) -> None:
        partition.arrived(records)
        self._serving.ready(partition)
        self._event.set()

    def ended(self, partition: Partition, offset: int) -> None:
        if partition.ended(offset):
            self._committing.want(partition)

    def _may_have_more(self, partition: Partition) -> None:
        if partition.buffered:
            self._serving.ready(partition)
            self._event.set()

    def taken(self, key: Place, count: int) -> None:
        flow = self._flows.get(key)
        if flow is not None and self._session is not None:
            self._session.taken(flow, count)

    def in_trouble(self, error: KafkaError) -> None:
        self._trouble = error
        self._event.set()
        if group_is_refused(error) and not self._shared.is_set():
            self._refused = error
            self._shared.set()

    def sought(self, flow: Flow, partition: Partition, window: Window) -> None:
        self._flows[flow.key] = flow
        self._lost(partition.seek(window))
        self._committing.want(partition)
        self.look_at_positions()
        self._event.set()

    def not_moved(self, partition: Partition) -> None:
        """Its group has no position any more."""
        partition.closing = False
        self.look_at_positions()

    def revoking(self, keys: Sequence[Place], commits: dict[Place, Commit], done: Callable[[], None]) -> None:
        going = [partition for key in keys if (partition := self._partitions.get(key)) is not None]
        for partition in going:
            partition.closing = True
        task = asyncio.get_running_loop().create_task(self._hand_over(going, commits, done))
        self._handing_over.add(task)
        self._moving.set()
        task.add_done_callback(self._handed_over)

    def _handed_over(self, task: asyncio.Task[None]) -> None:
        self._handing_over.discard(task)
        if not self._handing_over:
            self._moving.clear()

    async def _hand_over(
        self, going: Sequence[Partition], commits: dict[Place, Commit], done: Callable[[], None]
    ) -> None:
        loop = asyncio.get_running_loop()
        patience = 0.0 if self._leaving is not None else self._transport.options.handover
        out = [delivery for partition in going for delivery in partition.out]
        if out and patience:
            self._transport.revoking(out, patience)
        deadline = loop.time() + patience
        while any(partition.in_flight for partition in going) and (left := deadline - loop.time()) > 0:
            self._event.clear()
            await woken(self._event, left)
        for partition in going:
            if partition.owned:
                out = partition.out
                commit = partition.give_up(suspects=self._leaving is None)
                if not partition.in_transaction:  # who is next learns from that how it went
                    commits[partition.key] = commit
                if self._leaving is None:
                    self._lost(out)
        done()

    def gone(self, keys: Sequence[Place]) -> None:
        for key in keys:
            partition = self._partitions.pop(key, None)
            self._flows.pop(key, None)
            if partition is None:
                continue
            self._serving.remove(partition)
            self._disown(partition)
        self._event.set()

    def _disown(self, partition: Partition) -> None:
        """Whatever has taken it: nothing of it is committed any more, and who has something of it is told, once."""
        self._committing.forget(partition)
        self._transport.upkeep.touched([partition.channel])  # what was committed last may have been all that was needed
        self._lost(partition.disown())

    def _lost(self, deliveries: Sequence[Delivery]) -> None:
        if deliveries:
            self._transport.lost(deliveries)

    # Positions that somebody has moved

    async def seek(self, interest: int, position: Cursor) -> None:
        found = next((each for each in self._interests if each.id == interest), None)
        if found is None:
            raise ValueError(f"this consumer has no interest {interest}; update() it first")
        registrar = self._transport.registrar
        covered = registrar.registry.covered
        await self._transport.declaring.count_partitions(channel.channel for channel in covered(found.pattern))
        channels = [
            channel
            for channel in covered(found.pattern)
            if registrar.registry.position(self._group, channel.channel) is not None
        ]
        starts = await self._transport.positions.starts(channels, position)
        await registrar.append(*(Sought(self._group, each.channel, starts[each.channel]) for each in channels))

    def look_at_positions(self) -> None:
        registry = self._transport.registrar.registry
        for partition in list(self._partitions.values()):
            position = registry.position(self._group, partition.channel)
            if position is None:
                self._forsake(partition)
                continue
            if position.epoch == partition.window.epoch or partition.closing:
                continue
            partition.closing = True
            if self._session is not None:
                self._session.follow(partition)

    def _forsake(self, partition: Partition) -> None:
        """The group has no position there any more; the partition goes with the next change of topics, unless the
        group is given another position before that.
        """
        if partition.owned:
            self._lost(partition.seek(Window(0, epoch=_NOWHERE)))
            self._disown(partition)
            if self._closed:
                self._leave_when_empty()

    # Ending

    @property
    def in_flight(self) -> Mapping[str, int]:
        """By channel."""
        found: Counter[str] = Counter()
        for partition in self._partitions.values():
            found[partition.channel] += partition.in_flight
        return found

    @property
    def owned(self) -> Sequence[Partition]:
        return list(self._partitions.values())

    async def close(self) -> None:
        self._closed = True
        self._event.set()
        self._leave_when_empty()
        if self._leaving is not None:
            await asyncio.shield(self._leaving)

    def _leave_when_empty(self) -> None:
        if not any(partition.in_flight for partition in self._partitions.values()):
            _ = self._leave()

    def _leave(self) -> asyncio.Task[None]:
        if self._leaving is None:
            self._leaving = asyncio.get_running_loop().create_task(self._left())
        return self._leaving

    async def _left(self) -> None:
        if self._session is not None:
            options = self._transport.options
            # While the group changes, the last commit of one that leaves is refused, however often it is tried: its
            # client learns of no new generation any more.
            await asyncio.wait({self._committing.confirmed()}, timeout=options.handover)
            ended = await self._transport.run(self._session.stop, options.handover + options.timeout)
            if not ended:
                log.error("the consumer of %s did not end in time", self._group)
        self._committing.close()
        await self._committing.ended()
        self._transacting.close()
        if self._pausing is not None:
            self._pausing.cancel()
        self._transport.members.discard(self)

    async def leave(self) -> None:
        """Give back everything, now."""
        self._closed = True
        self._event.set()
        await asyncio.shield(self._leave())
