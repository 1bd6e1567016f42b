"""This bus's broadcasts: every subscription gets every message of its channels, and keeps nothing when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from neuralcore.messaging.names import is_pattern
from neuralcore.messaging.transport import Consumer as Contract
from neuralcore.messaging.transport import Cursor, Delivery, Demand, Interest, Settlement, SettleStatus
from neuralcore_transports.kafka.administration import Place
from neuralcore_transports.kafka.clients import log
from neuralcore_transports.kafka.dedup import Seen
from neuralcore_transports.kafka.errors import position_is_gone
from neuralcore_transports.kafka.partition import Partition
from neuralcore_transports.kafka.poller import Flow, room
from neuralcore_transports.kafka.records import Record
from neuralcore_transports.kafka.registry import Channel
from neuralcore_transports.kafka.serving import Serving
from neuralcore_transports.kafka.together import Job
from neuralcore_transports.kafka.window import Commit, Window
from neuralcore_transports.waiting import woken

if TYPE_CHECKING:
    from neuralcore_transports.kafka.transport import KafkaTransport

__all__ = ["Broadcasts"]

_UNLIMITED: Final = 1 << 62
_SOON: Final = 0.02
"""Seconds after which the reader is asked again."""
_AGAIN: Final = 1.0
"""Seconds after which new channels that could not be reached are tried again."""
_LOOK: Final = 30.0
"""Seconds after which it is looked whether somebody else has added partitions."""


class Broadcasts(Contract):
    """On the loop."""

    def __init__(self, transport: KafkaTransport) -> None:
        self._transport = transport
        self._interests: dict[int, Interest] = {}
        """Those that listen to all that there was when they came."""
        self._fixed: dict[int, tuple[list[Channel], dict[Place, int]]] = {}
        """Of the others what they are to listen to, and from where: that stays, however often it is tried."""
        self._servings: dict[int, Serving] = {}
        self._answers: dict[int, dict[str, int]] = {}
        """By interest: the channels that it listens to, as Serving asks for it."""
        self._reached: dict[int, dict[str, int]] = {}
        """By interest and channel: so many partitions of it."""
        self._fans: dict[Place, _Fan] = {}
        self._ending: list[_Fan] = []
        """Those whose partitions nobody is to hear any more, and the reader may have yet."""
        self._changing = asyncio.Lock()
        """A channel that comes while subscriptions change is listened to once."""
        self._event = asyncio.Event()
        self._again: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._closed = False

    async def update(self, interests: Sequence[Interest]) -> None:
        registry = self._transport.registrar.registry
        await self._transport.registrar.refresh()
        async with self._changing:
            wanted = {interest.id: interest for interest in interests}
            new = [interest for id, interest in wanted.items() if id not in self._interests]
            await self._transport.ensure([each.pattern for each in new if not is_pattern(each.pattern)])
            await self._count_partitions(new)  # what is in those that come later is new, and heard from its beginning
            for interest in new:
                if interest.id not in self._fixed:
                    covered, cursor = registry.covered(interest.pattern), interest.start or "new"
                    found = await self._transport.run(self._transport.positions.offsets, covered, cursor)
                    self._fixed[interest.id] = covered, found
            await self._end([id for id in {*self._interests, *self._fixed} if id not in wanted])
            for interest in new:
                await self._begin(interest)
        await self.refresh()
        if self._look is None:
            self._look_later()

    async def _begin(self, interest: Interest) -> None:
        """What was reached when it fails is kept, and not begun again."""
        id = interest.id
        self._servings.setdefault(id, Serving())
        self._answers.setdefault(id, {})
        self._reached.setdefault(id, {})
        covered, starts = self._fixed[id]
        for channel in covered:
            await self._listen(id, channel, starts)
        self._interests[id] = interest
        del self._fixed[id]

    async def refresh(self) -> None:
        """New channels and partitions, from their beginnings. When that fails, it is tried again."""
        try:
            async with self._changing:
                for id, interest in self._interests.items():
                    for channel in self._transport.registrar.registry.covered(interest.pattern):
                        await self._listen(id, channel, {})
        except Exception:
            if self._again is None and not self._closed:
                self._again = asyncio.get_running_loop().call_later(_AGAIN, self._refresh_again)
            raise

    def _refresh_again(self) -> None:
        self._again = None
        if self._transport.running:
            self._transport.in_background(self.refresh())

    async def _count_partitions(self, interests: Iterable[Interest]) -> None:
        covered = self._transport.registrar.registry.covered
        channels = {channel.channel for each in interests for channel in covered(each.pattern)}
        await self._transport.count_partitions(channels)

    def _look_later(self) -> None:
        if not self._closed:
            self._look = asyncio.get_running_loop().call_later(_LOOK, self._look_now)

    def _look_now(self) -> None:
        if self._transport.running:
            self._transport.in_background(self._look_for_partitions())

    async def _look_for_partitions(self) -> None:
        """The registry knows those that a client of ours has added."""
        try:
            await self._count_partitions(self._interests.values())
        finally:
            self._look_later()

    async def _listen(self, id: int, channel: Channel, starts: Mapping[Place, int]) -> None:
        if self._reached[id].get(channel.channel, 0) >= channel.partitions:
            return
        for band, place in self._transport.positions.places(channel):
            fan = self._fans.get(place)
            if fan is None or not fan.has(id):
                await self._listen_to(place, _Listener(self, id, channel, band, place, starts.get(place, 0)))
        self._answers[id][channel.channel] = id
        self._reached[id][channel.channel] = channel.partitions
        self._event.set()

    async def _listen_to(self, place: Place, listener: _Listener) -> None:
        if place in self._fans:
            self._fans[place].add(listener)
            return
        await self._sweep()  # the reader has a partition once
        fan = _Fan(self._transport, place)
        self._ending.append(fan)  # unless it begins
        try:
            await fan.begin(listener)
        except BaseException:
            self._servings[listener.id].remove(listener.partition)
            raise
        self._ending.remove(fan)
        self._fans[place] = fan

    async def _end(self, ids: Collection[int]) -> None:
        for id in ids:
            for known in (self._interests, self._fixed, self._servings, self._answers, self._reached):
                known.pop(id, None)
            for place, fan in list(self._fans.items()):
                if fan.remove(id):
                    self._ending.append(self._fans.pop(place))
        await self._sweep()

    async def _sweep(self) -> None:
        """Also what was asked for and given up: the reader does it all the same, later."""
        while self._ending:
            await self._ending[0].end()
            del self._ending[0]

    def ready(self, listener: _Listener) -> None:
        serving = self._servings.get(listener.id)
        if serving is not None:
            serving.ready(listener.partition)
            self._event.set()

    async def fetch(self, demand: Mapping[int, Demand], timeout: float) -> Sequence[Delivery]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            self._event.clear()
            now = self._transport.clock.monotonic_ns()
            servings = [self._servings[id] for id in demand if id in self._servings]
            found = [
                delivery
                for id, wanted in demand.items()
                if id in self._servings
                for delivery in self._servings[id].take({id: wanted}, self._answers[id], now)
            ]
            left = deadline - loop.time()
            if found or left <= 0 or self._closed:
                return found
            dues = [serving.due for serving in servings if serving.due is not None]
            await woken(self._event, min(left, max(0, min(dues) - now) / 1e9) if dues else left)

    async def settle(self, settlements: Sequence[Settlement]) -> list[SettleStatus]:
        return self._settle(settlements)

    def together(self, job: Job) -> None:
        """Nobody but this process knows of what ends here: of the transaction are the records alone."""

        def ended(done: asyncio.Future[None]) -> None:
            if not done.cancelled() and done.exception() is None and job.settlement is not None:
                self._settle([job.settlement])

        job.done.add_done_callback(ended)
        self._transport.publish_together(job)

    def _settle(self, settlements: Sequence[Settlement]) -> list[SettleStatus]:
        now = self._transport.clock.monotonic_ns()
        statuses = []
        for settlement in settlements:
            partition: Partition = settlement.delivery.lease.partition  # type: ignore[attr-defined]
            known = partition.settle(settlement, now)
            statuses.append(SettleStatus.SETTLED if known else SettleStatus.LEASE_LOST)
            serving = self._servings.get(settlement.delivery.interest)
            if known and serving is not None:
                serving.ready(partition)
        self._event.set()
        return statuses

    async def seek(self, interest: int, position: Cursor) -> None:
        if interest not in self._interests:
            raise ValueError(f"this consumer has no interest {interest}; update() it first")
        async with self._changing:  # a channel that is just being begun goes there too
            if interest in self._interests:
                await self._seek(interest, position)

    async def _seek(self, interest: int, position: Cursor) -> None:
        covered = self._transport.registrar.registry.covered(self._interests[interest].pattern)
        for place, offset in (await self._transport.run(self._transport.positions.offsets, covered, position)).items():
            if place in self._fans:
                self._fans[place].seek(interest, offset)

    async def close(self) -> None:
        self._closed = True
        self._event.set()
        for timer in (self._again, self._look):
            if timer is not None:
                timer.cancel()
        if self._transport.running:
            async with self._changing:
                await self._end([*self._interests, *self._fixed])
        self._transport.broadcasts.discard(self)


class _Listener:
    """One subscription on one partition."""

    def __init__(self, home: Broadcasts, id: int, channel: Channel, band: int, place: Place, start: int) -> None:
        transport = home._transport
        self.home = home
        self.id = id
        self.channel = channel.channel
        self.next = start
        """The offset of what comes next."""
        self.behind = False
        """Enough waits for it: it reads again from ``next`` when that is done."""
        self.rewinding = False
        """That was asked for."""
        self._room = 0
        self.partition = Partition(
            home,
            place,
            channel.channel,
            band,
            _free(start),
            below=channel.below(band),
            clock=transport.clock,
            seen=Seen(transport.options.dedup_ns(channel.dedup_window), transport.options.dedup_count),
            taken=self._taken,
            count=transport.count,
        )
        self.on_room = _nobody

    def arrived(self, records: list[Record]) -> None:
        if self.behind:
            return
        fresh = [record for record in records if record.offset() >= self.next]
        if fresh:
            self.next = fresh[-1].offset() + 1
            self.partition.arrived(fresh)
            self._room = room(self.home._transport.options.prefetch, fresh)
            self.behind = self.partition.buffered >= self._room
            self.home.ready(self)

    def _taken(self, count: int) -> None:
        if self.behind and not self.rewinding and self.partition.buffered <= self._room // 2:
            self.on_room()


def _free(start: int) -> Window:
    """Of which nobody is told."""
    window = Window(start, limit=_UNLIMITED)
    window.committed(Commit(start, "", _UNLIMITED))
    return window


def _nobody() -> None: ...


class _Fan:
    """One partition, for all who listen to it."""

    def __init__(self, transport: KafkaTransport, place: Place) -> None:
        self._transport = transport
        self._flow = Flow(*place, self._arrived, self._failed)
        self._seeking = False
        """The reader was told to go back, and has not said yet that it did."""
        self._going: list[_Listener] = []
        """Those that have caught up then."""
        self.listeners: list[_Listener] = []

    async def begin(self, listener: _Listener) -> None:
        """Once, for the first one. Raises Unavailable; then the reader may begin all the same, later."""
        listener.on_room = partial(self._read_again, listener)
        self.listeners.append(listener)  # what is read may arrive before the answer
        try:
            await self._transport.run(self._transport.reader.add, self._flow, listener.next)
        except BaseException:
            self.listeners.remove(listener)
            raise

    async def end(self) -> None:
        """Raises Unavailable; then it may be called again."""
        if not self._flow.closed:  # its partition may be another's by now
            await self._transport.run(self._transport.reader.remove, self._flow)

    def add(self, listener: _Listener) -> None:
        listener.on_room = partial(self._read_again, listener)
        self.listeners.append(listener)
        self._read_again(listener)

    def has(self, id: int) -> bool:
        return any(each.id == id for each in self.listeners)

    def remove(self, id: int) -> bool:
        """Whether nobody is left."""
        self.listeners = [each for each in self.listeners if each.id != id]
        return not self.listeners

    def seek(self, id: int, offset: int) -> None:
        for listener in self.listeners:
            if listener.id == id:
                self._go_to(listener, offset)
                self._read_again(listener)

    def _go_to(self, listener: _Listener, offset: int) -> None:
        out = listener.partition.seek(_free(offset))
        if out:
            self._transport.lost(out)
        listener.next = offset

    def _arrived(self, records: list[Record]) -> None:
        self._transport.reader.poller.taken(self._flow, len(records))
        for listener in self.listeners:
            listener.arrived(records)

    # Reading again what some have missed; the others do not see it twice

    def _read_again(self, *listeners: _Listener) -> None:
        for listener in listeners:
            listener.behind = listener.rewinding = True
            if listener in self._going:  # not for what it wants now
                self._going.remove(listener)
        self._rewind()

    def _rewind(self) -> None:
        """One at a time: of two the last would count, and take the reader past what the other wants."""
        if self._seeking or not any(each.rewinding for each in self.listeners):
            return
        self._seeking = True
        self._going = [each for each in self.listeners if each.rewinding]
        start = min(each.next for each in self.listeners if each.rewinding or not each.behind)
        self._transport.reader.poller.order(partial(self._seek, start))

    def _seek(self, offset: int) -> None:
        """In the thread: what was read before arrives before it."""
        try:
            self._transport.reader.poller.seek(self._flow, offset)
        except KafkaException as error:
            log.debug("seeking in %s failed, it is tried again: %s", self._flow.key, error)
            self._transport.call(self._later, self._sought)
            return
        self._transport.call(self._caught_up)

    def _caught_up(self) -> None:
        for listener in self._going:
            listener.behind = listener.rewinding = False
        self._sought()

    def _sought(self) -> None:
        self._seeking = False
        self._going = []
        self._rewind()

    def _later(self, what: Callable[[], None]) -> None:
        if not self._flow.closed:
            asyncio.get_running_loop().call_later(_SOON, what)

    # What is gone

    def _failed(self, error: KafkaError) -> None:
        if position_is_gone(error):
            self._look()
        else:
            log.warning("reading %s failed: %s", self._flow.key, error.str())

    def _look(self) -> None:
        self._transport.reader.poller.order(self._go_on)

    def _go_on(self) -> None:
        """In the thread: what was to be read next is gone."""
        try:
            place = TopicPartition(*self._flow.key)
            low, high = self._transport.reader.client.get_watermark_offsets(place, self._transport.options.timeout)
        except KafkaException as error:
            log.warning("%s is not known: %s", self._flow.key, error)
            self._transport.call(self._later, self._look)
            return
        self._transport.call(self._found, low, high)

    def _found(self, low: int, high: int) -> None:
        again = []
        for listener in self.listeners:
            if not low <= listener.next <= high and listener.next > 0:
                text = f"a broadcast was at {listener.next} of {self._flow.key}, where {low} to {high} are kept"
                self._transport.data_lost(listener.channel, text)
            if listener.rewinding or not listener.behind or listener.next > high:
                again.append(listener)
            if listener.next > high:  # what comes there is not what it has had there
                self._go_to(listener, high)
            else:
                listener.next = max(low, listener.next)
        self._read_again(*again)
