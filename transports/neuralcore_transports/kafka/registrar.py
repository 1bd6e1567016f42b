"""Keeps this client's copy of the registry, and writes to the log that it is made of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from confluent_kafka import KafkaError

from neuralcore.messaging.errors import Unavailable
from neuralcore_transports.kafka.browser import Browser
from neuralcore_transports.kafka.clients import log
from neuralcore_transports.kafka.errors import NotOurs, is_refusing, translated
from neuralcore_transports.kafka.poller import Flow
from neuralcore_transports.kafka.publisher import Outgoing, Publisher
from neuralcore_transports.kafka.reader import Reader
from neuralcore_transports.kafka.records import Record
from neuralcore_transports.kafka.registry import FORMAT, Change, Channel, Format, Registry, Removed, read, written
from neuralcore_transports.kafka.topics import Topics

__all__ = ["Registrar"]

_BEGINNING: Final = 0


class Registrar:
    """On the loop. Changes are applied when they are read, one's own too: the log's order is the only one."""

    def __init__(
        self,
        topics: Topics,
        publisher: Publisher,
        reader: Reader,
        browser: Browser,
        *,
        timeout: float,
        where: str,
        changed: Callable[[Sequence[Change]], None],
        lost: Callable[[str], None],
    ) -> None:
        self.registry = Registry()
        self._topics = topics
        self._publisher = publisher
        self._reader = reader
        self._browser = browser
        self._timeout = timeout
        self._where = where
        self._changed = changed
        self._lost = lost
        self._by_topic: dict[str, tuple[Channel, int]] = {}
        self._topics_of: dict[str, tuple[Channel, list[str]]] = {}
        self._read = _BEGINNING
        """Where the next change is read."""
        self._strange: str | None = None
        """Why the first record that is no change is none."""
        self._refused: KafkaError | None = None
        """What the brokers have said to reading on, if that was all."""
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._flow = Flow(topics.registry, 0, self._arrived, self._failed)

    def open(self) -> None:
        """Blocks. Raises Unavailable."""
        oldest, _ = self._ends()
        self._reader.add(self._flow, oldest)

    async def join(self) -> None:
        """Read what there is; a log that begins now is told its format. Raises Unavailable, NotOurs."""
        await self.refresh()
        if self.registry.format is None:
            if self._strange is not None:
                raise NotOurs(self._where, self._topics.registry, self._strange)
            await self.append(Format(FORMAT))
        if self.registry.format != FORMAT:
            reason = f"its format is {self.registry.format}, and ours {FORMAT}"
            raise NotOurs(self._where, self._topics.registry, reason)

    def _ends(self) -> tuple[int, int]:
        place = self._topics.registry, 0
        return self._browser.ends([place])[place]

    def channel_of(self, topic: str) -> tuple[Channel, int] | None:
        """And which of its bands the topic is. From any thread."""
        return self._by_topic.get(topic)

    def topics_of(self, channel: str) -> tuple[Channel, list[str]]:
        """Those of its bands. Raises KeyError."""
        return self._topics_of[channel]

    async def refresh(self) -> None:
        """Read what there is by now. Raises KafkaRefused, Unavailable."""
        _, end = await asyncio.get_running_loop().run_in_executor(None, self._ends)
        await self._reach(end)

    async def append(self, *changes: Change) -> None:
        """Returns when they are applied, in their order. Raises Unavailable: they may be applied all the same."""
        if not changes:
            return
        topic = self._topics.registry
        outgoing = [Outgoing(topic, 0, written(change), None, []) for change in changes]
        sent = await self._publisher.send(outgoing)
        for each in sent:
            if each.error is not None:
                raise translated(each.error, self._where)
        await self._reach(max(each.offset for each in sent) + 1)

    async def _reach(self, end: int) -> None:
        if self._read >= end:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = end
        await asyncio.wait({future}, timeout=self._timeout)
        self._waiting.pop(future, None)
        if self._read >= end:
            return
        if self._refused is not None:
            raise translated(self._refused, self._where)
        raise Unavailable("kafka", f"{self._where}: the registry cannot be read")

    # The log

    def _arrived(self, records: list[Record]) -> None:
        changes = []
        for record in records:
            self._read = record.offset() + 1
            change = self._apply(record)
            if change is not None:
                changes.append(change)
        self._changed(changes)
        self._reader.poller.taken(self._flow, len(records))
        self._refused = None
        self._answer()

    def _answer(self) -> None:
        for future, end in list(self._waiting.items()):
            if not future.done() and (self._read >= end or self._refused is not None):
                future.set_result(None)

    def _apply(self, record: Record) -> Change | None:
        try:
            change = read(record.value() or b"")
        except ValueError as error:
            log.error("%s has at %d what is no change: %s", self._topics.registry, record.offset(), error)
            self._strange = self._strange or f"at {record.offset()} there is what is no change: {error}"
            return None
        self.registry.apply(record.offset(), change)
        if isinstance(change, Channel):
            channel = self.registry.channels[change.channel]
            topics = self._topics.bands(channel.channel, channel.bands)
            self._topics_of[channel.channel] = channel, topics
            self._by_topic.update((topic, (channel, band)) for band, topic in enumerate(topics))
        elif isinstance(change, Removed) and change.channel in self._topics_of:
            for topic in self._topics_of.pop(change.channel)[1]:
                self._by_topic.pop(topic, None)
        return change

    def _failed(self, error: KafkaError) -> None:
        if is_refusing(error):
            log.warning("reading %s failed: %s", self._topics.registry, error.str())
            self._refused = error
            self._answer()
        else:
            self._lost(f"the registry cannot be read any more: {error.str()}")
