"""Envelopes become records in the right partitions, and what became of each is told in the contract's words."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaError

from neuralcore.messaging.names import INBOX_PREFIX
from neuralcore.messaging.transport import Envelope, PublishStatus
from neuralcore_transports.kafka.inbox import partition_of
from neuralcore_transports.kafka.publisher import Outgoing, Sent
from neuralcore_transports.kafka.records import headers_of
from neuralcore_transports.kafka.topics import band_of

if TYPE_CHECKING:
    from neuralcore_transports.kafka.transport import KafkaTransport

__all__ = ["Sending"]

_ANY: Final = -1
"""The client library finds a key's partition, as Java's does."""
_REFUSED: Final = frozenset(
    {
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.INVALID_RECORD,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.POLICY_VIOLATION,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
    }
)
_GONE: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})


class Sending:
    def __init__(self, transport: KafkaTransport, source: str) -> None:
        """``source``: who publishes, as CloudEvents says it."""
        self._transport = transport
        self._source = source

    async def publish(self, envelopes: Sequence[Envelope]) -> tuple[list[PublishStatus], dict[int, str]]:
        """The status of each, and why those that were refused were."""
        statuses = [PublishStatus.UNKNOWN] * len(envelopes)
        reasons: dict[int, str] = {}
        left = list(range(len(envelopes)))
        for again in (True, False):
            sent = await self._send([envelopes[index] for index in left])
            gone = []
            for index, each in zip(left, sent, strict=True):
                if each.error is not None and again and each.error.code() in _GONE:
                    gone.append(index)
                else:
                    statuses[index] = self._status(each, index, reasons)
            if not gone:
                break
            left = gone
            channels = {envelopes[index].channel for index in gone}
            await self._transport.make_again([name for name in channels if not name.startswith(INBOX_PREFIX)])
        late = {envelopes[index].channel for index, status in enumerate(statuses) if status is PublishStatus.UNKNOWN}
        if late:
            self._transport.in_background(self._transport.look_for(late))
        return statuses, reasons

    def _status(self, sent: Sent, index: int, reasons: dict[int, str]) -> PublishStatus:
        if sent.error is None:
            return PublishStatus.STORED
        if sent.error.fatal():
            self._transport.publisher.failed_for_good()
        if sent.error.code() in _REFUSED:
            reasons[index] = sent.error.str()
            return PublishStatus.REFUSED
        return PublishStatus.UNKNOWN

    async def _send(self, envelopes: Sequence[Envelope]) -> list[Sent]:
        await self._transport.ensure(
            [name for name in {each.channel for each in envelopes} if not name.startswith(INBOX_PREFIX)]
        )
        now = self._transport.clock.time_ns()
        records = [self._outgoing(envelope, now) for envelope in envelopes]
        sent = iter(await self._transport.publisher.send([record for record in records if record is not None]))
        return [Sent() if record is None else next(sent) for record in records]

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
