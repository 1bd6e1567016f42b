"""This bus's broadcasts: every subscription gets every message of its channels, and keeps nothing when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from neuralcore.messaging.names import is_pattern
from neuralcore.messaging.transport import Consumer as Contract
from neuralcore.messaging.transport import Cursor, Delivery, Demand, Interest, Settlement, SettleStatus
from neuralcore_transports.kafka.administration import Place
from neuralcore_transports.kafka.fan import Fan, Listener
from neuralcore_transports.kafka.partition import Partition
from neuralcore_transports.kafka.registry import Channel
from neuralcore_transports.kafka.serving import Serving
from neuralcore_transports.kafka.together import Job
from neuralcore_transports.waiting import woken

if TYPE_CHECKING:
    from neuralcore_transports.kafka.transport import KafkaTransport

__all__ = ["Broadcasts"]

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
        self._created: dict[int, dict[str, int | None]] = {}
        """The same channels, as the registry knows them apart."""
        self._fans: dict[Place, Fan] = {}
        self._ending: list[Fan] = []
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
            await self._transport.declaring.ensure([each.pattern for each in new if not is_pattern(each.pattern)])
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
        self._created.setdefault(id, {})
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
                    await self._leave_removed(id)
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
        await self._transport.declaring.count_partitions(channels)

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
            if fan is None or fan.of(id) is None:
                start = starts.get(place, 0)
                listener = Listener(self._transport, self, id, channel, band, place, start, ready=self._may_have_more)
                await self._listen_to(place, listener)
        self._answers[id][channel.channel] = id
        self._reached[id][channel.channel] = channel.partitions
        self._created[id][channel.channel] = self._transport.registrar.registry.created(channel.channel)
        self._event.set()

    async def _leave_removed(self, id: int) -> None:
        """One of the same name may have been made since, and begins anew."""
        created = self._transport.registrar.registry.created
        gone = {name for name, since in self._created[id].items() if created(name) != since}
        for place, fan in list(self._fans.items()):
            listener = fan.of(id)
            if listener is None or listener.channel not in gone:
                continue
            self._servings[id].remove(listener.partition)
            if fan.remove(id):
                self._ending.append(self._fans.pop(place))
        for name in gone:
            for known in (self._answers, self._reached, self._created):
                known[id].pop(name, None)
        await self._sweep()

    async def _listen_to(self, place: Place, listener: Listener) -> None:
        if place in self._fans:
            self._fans[place].add(listener)
            return
        await self._sweep()  # the reader has a partition once
        fan = Fan(self._transport, place)
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
            for known in (self._interests, self._fixed, self._servings, self._answers, self._reached, self._created):
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

    def _may_have_more(self, listener: Listener) -> None:
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
