"""Where this bus's replies arrive: one partition of a topic that all buses share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError

from neuralcore.messaging.names import INBOX_PREFIX
from neuralcore.messaging.transport import Envelope, Inbox
from neuralcore_transports.kafka.clients import log
from neuralcore_transports.kafka.errors import position_is_gone
from neuralcore_transports.kafka.poller import Flow
from neuralcore_transports.kafka.records import Record, envelope_of
from neuralcore_transports.waiting import woken

if TYPE_CHECKING:
    from neuralcore_transports.kafka.transport import KafkaTransport

__all__ = ["KafkaInbox", "partition_of"]


def partition_of(address: str) -> int | None:
    """Which partition an address is in; None for one that is nobody's."""
    last = address.rpartition(".")[2]
    return int(last) if last.isdecimal() and len(last) < 6 else None


class KafkaInbox(Inbox):
    def __init__(self, transport: KafkaTransport, name: str, partition: int) -> None:
        self._transport = transport
        self._address = f"{INBOX_PREFIX}{name}.{partition}"
        self._type = self._address.encode()
        self._event = asyncio.Event()
        self._replies: list[Envelope] = []
        self._flow = Flow(transport.topics.inboxes, partition, self._arrived, self._failed)

    def open(self) -> None:
        """Blocks until whatever is sent from now on will arrive."""
        _, end = self._transport.browser.ends([self._flow.key])[self._flow.key]
        self._transport.reader.add(self._flow, end)

    @property
    def address(self) -> str:
        return self._address

    def _arrived(self, records: list[Record]) -> None:
        self._transport.reader.poller.taken(self._flow, len(records))
        for record in records:
            if ("ce_type", self._type) in (record.headers() or ()):
                self._replies.append(envelope_of(record, self._address))
        if self._replies:
            self._event.set()

    def _failed(self, error: KafkaError) -> None:
        if position_is_gone(error):
            self._transport.data_lost(self._address, "replies were deleted before they were read")
            self._transport.in_background(self._again())
        else:
            log.warning("reading replies failed: %s", error.str())

    async def _again(self) -> None:
        await self.close()
        self._flow = Flow(self._flow.topic, self._flow.partition, self._arrived, self._failed)
        await self._transport.run(self.open)

    async def fetch(self, timeout: float) -> Sequence[Envelope]:
        if not self._replies:
            self._event.clear()
            await woken(self._event, timeout)
        replies, self._replies = self._replies, []
        return replies

    async def close(self) -> None:
        if not self._flow.closed and self._transport.running:
            await self._transport.run(self._transport.reader.remove, self._flow)
