"""Browsing: pages of what a channel keeps, oldest first. It blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuralcore.messaging.transport import Cursor, Page
from neuralcore_transports.kafka.positions import cursor_of
from neuralcore_transports.kafka.records import envelope_of
from neuralcore_transports.kafka.registry import Channel
from neuralcore_transports.kafka.trimming import Groups, Progress

if TYPE_CHECKING:
    from neuralcore_transports.kafka.transport import KafkaTransport

__all__ = ["page"]


def page(transport: KafkaTransport, channel: Channel, groups: Groups, start: Cursor, limit: int) -> Page:
    """What every group has settled is not kept, unless retention says so, though it may not be deleted yet."""
    progress = Progress(transport, [channel], groups)
    places = progress.places[channel.channel]
    starts = transport.positions.offsets([channel], start)
    at = {place: max(starts[place], progress.ends[place][0]) for place in places}
    found = transport.browser.read(at, limit)
    merged = sorted(
        ((envelope_of(record, channel.channel), record) for records in found.values() for record in records),
        key=lambda each: (each[1].timestamp()[1], _time(each[0].timestamp_ns), each[1].offset()),
    )[:limit]
    envelopes = []
    for envelope, record in merged:
        place = record.topic(), record.partition()
        at[place] = record.offset() + 1
        if channel.kept or not progress.settled_by_all(channel.channel, place, record.offset()):
            envelopes.append(envelope)
    left = any(at[place] < progress.ends[place][1] for place in places)
    return Page(envelopes, cursor_of(at) if left and merged else None)


def _time(timestamp_ns: object) -> int:
    return timestamp_ns if isinstance(timestamp_ns, int) else 0
