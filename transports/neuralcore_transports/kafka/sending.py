"""Envelopes become records in the right partitions, and what became of each is told in the contract's words."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaError

from neuralcore.messaging.errors import NeuralCoreError, Unavailable
from neuralcore.messaging.names import INBOX_PREFIX
from neuralcore.messaging.transport import Envelope, PublishStatus
from neuralcore_transports.kafka.errors import record_is_refused
from neuralcore_transports.kafka.inbox import partition_of
from neuralcore_transports.kafka.publisher import Outgoing
from neuralcore_transports.kafka.records import headers_of
from neuralcore_transports.kafka.topics import band_of

if TYPE_CHECKING:
    from neuralcore_transports.kafka.transport import KafkaTransport

__all__ = ["Sending"]

_ANY: Final = -1
"""The client library finds a key's partition, as Java's does."""
_GONE: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})
"""Of which nothing has happened: a topic is not there, or has fewer partitions than the registry says."""


class Sending:
    def __init__(self, transport: KafkaTransport, source: str) -> None:
        """``source``: who publishes, as CloudEvents says it."""
        self._transport = transport
        self._source = source

    async def publish(self, envelopes: Sequence[Envelope]) -> tuple[list[PublishStatus], dict[int, str]]:
        """The status of each, and why those that were refused were. Raises nothing that is one item's: others may have
        been settled or stored by then.
        """
        statuses = [PublishStatus.UNKNOWN] * len(envelopes)
        reasons: dict[int, str] = {}
        wrong = await self._without_topics({each.channel for each in envelopes})
        left = []
        for index, envelope in enumerate(envelopes):
            error = wrong.get(envelope.channel)
            if error is None:
                left.append(index)
            elif not isinstance(error, Unavailable):
                statuses[index], reasons[index] = PublishStatus.REFUSED, str(error)
        gone = await self._send(envelopes, left, statuses, reasons)
        if gone:
            channels = {envelopes[index].channel for index in gone}
            await self._transport.declaring.mend([name for name in channels if not name.startswith(INBOX_PREFIX)])
            await self._send(envelopes, gone, statuses, reasons)
        late = {envelopes[index].channel for index in left if statuses[index] is PublishStatus.UNKNOWN}
        if late:
            self._transport.in_background(self._transport.declaring.look_for(late))
        return statuses, reasons

    async def prepared(self, envelopes: Sequence[Envelope]) -> list[Outgoing]:
        """For a transaction: all of them or none. Raises NeuralCoreError."""
        await self._transport.declaring.ensure(
            {each.channel for each in envelopes if not each.channel.startswith(INBOX_PREFIX)}
        )
        now = self._transport.clock.time_ns()
        return [record for each in envelopes if (record := self._outgoing(each, now)) is not None]

    async def _without_topics(self, channels: Collection[str]) -> dict[str, NeuralCoreError]:
        """Those that cannot be published to, and why."""
        names = [name for name in channels if not name.startswith(INBOX_PREFIX)]
        try:
            await self._transport.declaring.ensure(names)
        except NeuralCoreError as error:
            if len(names) == 1:
                return {names[0]: error}
        else:
            return {}
        wrong: dict[str, NeuralCoreError] = {}
        for name in names:  # one of them is at fault
            wrong |= await self._without_topics([name])
        return wrong

    async def _send(
        self,
        envelopes: Sequence[Envelope],
        which: Sequence[int],
        statuses: list[PublishStatus],
        reasons: dict[int, str],
    ) -> list[int]:
        """Those whose topic, or partition, is not there."""
        now = self._transport.clock.time_ns()
        records = {index: self._outgoing(envelopes[index], now) for index in which}
        outgoing = {index: record for index, record in records.items() if record is not None}
        for index in records.keys() - outgoing.keys():
            statuses[index] = PublishStatus.STORED  # a reply to nobody
        gone = []
        for index, sent in zip(outgoing, await self._transport.publisher.send(list(outgoing.values())), strict=True):
            error = sent.error
            if error is None:
                statuses[index] = PublishStatus.STORED
            elif record_is_refused(error):
                statuses[index], reasons[index] = PublishStatus.REFUSED, error.str()
            elif error.code() in _GONE:
                gone.append(index)
        return gone

    def _outgoing(self, envelope: Envelope, now: int) -> Outgoing | None:
        """None for a reply to nobody."""
        transport = self._transport
        headers = headers_of(envelope, self._source, now)
        if envelope.channel.startswith(INBOX_PREFIX):
            partition = partition_of(envelope.channel)
            if partition is None:
                return None
            return Outgoing(transport.topics.inboxes, partition, envelope.body, None, headers)
        channel, topics = transport.registrar.topics_of(envelope.channel)
        topic = topics[band_of(channel.bands, envelope.priority)] if channel.bands else topics[0]
        if envelope.key is not None:
            return Outgoing(topic, _ANY, envelope.body, envelope.key, headers)
        if channel.partitions == 1:
            return Outgoing(topic, 0, envelope.body, None, headers)
        # a message that is published again meets the first one in the same partition, and is known there
        partition = zlib.crc32((envelope.dedup_key or envelope.id).encode()) % channel.partitions
        return Outgoing(topic, partition, envelope.body, None, headers)
