"""Who listens to one partition, each at its own pace, of which there is one reading."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from neuralcore_transports.kafka.administration import Place
from neuralcore_transports.kafka.clients import log
from neuralcore_transports.kafka.dedup import Seen
from neuralcore_transports.kafka.errors import position_is_gone
from neuralcore_transports.kafka.partition import Partition
from neuralcore_transports.kafka.poller import Flow, room
from neuralcore_transports.kafka.records import Record
from neuralcore_transports.kafka.registry import Channel
from neuralcore_transports.kafka.settling import Settler
from neuralcore_transports.kafka.window import Commit, Window

if TYPE_CHECKING:
    from neuralcore_transports.kafka.transport import KafkaTransport

__all__ = ["Fan", "Listener"]

_UNLIMITED: Final = 1 << 62
_SOON: Final = 0.02
"""Seconds after which the reader is asked again."""


class Listener:
    """One subscription on one partition."""

    def __init__(
        self,
        transport: KafkaTransport,
        owner: Settler,
        id: int,
        channel: Channel,
        band: int,
        place: Place,
        start: int,
        *,
        ready: Callable[[Listener], None],
    ) -> None:
        """``owner``: whose deliveries these are, which hears when there may be some that are ``ready``."""
        self._prefetch = transport.options.prefetch
        self._ready = ready
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
            owner,
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
            self._room = room(self._prefetch, fresh)
            self.behind = self.partition.buffered >= self._room
            self._ready(self)

    def _taken(self, count: int) -> None:
        if self.behind and not self.rewinding and self.partition.buffered <= self._room // 2:
            self.on_room()


def _free(start: int) -> Window:
    """Of which nobody is told."""
    window = Window(start, limit=_UNLIMITED)
    window.committed(Commit(start, "", _UNLIMITED))
    return window


def _nobody() -> None: ...


class Fan:
    """One partition, for all who listen to it."""

    def __init__(self, transport: KafkaTransport, place: Place) -> None:
        self._transport = transport
        self._flow = Flow(*place, self._arrived, self._failed)
        self._seeking = False
        """The reader was told to go back, and has not said yet that it did."""
        self._going: list[Listener] = []
        """Those that have caught up then."""
        self.listeners: list[Listener] = []

    async def begin(self, listener: Listener) -> None:
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

    def add(self, listener: Listener) -> None:
        listener.on_room = partial(self._read_again, listener)
        self.listeners.append(listener)
        self._read_again(listener)

    def of(self, id: int) -> Listener | None:
        return next((each for each in self.listeners if each.id == id), None)

    def remove(self, id: int) -> bool:
        """Whether nobody is left."""
        self.listeners = [each for each in self.listeners if each.id != id]
        return not self.listeners

    def seek(self, id: int, offset: int) -> None:
        for listener in self.listeners:
            if listener.id == id:
                self._go_to(listener, offset)
                self._read_again(listener)

    def _go_to(self, listener: Listener, offset: int) -> None:
        out = listener.partition.seek(_free(offset))
        if out:
            self._transport.lost(out)
        listener.next = offset

    def _arrived(self, records: list[Record]) -> None:
        self._transport.reader.poller.taken(self._flow, len(records))
        for listener in self.listeners:
            listener.arrived(records)

    # Reading again what some have missed; the others do not see it twice

    def _read_again(self, *listeners: Listener) -> None:
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
