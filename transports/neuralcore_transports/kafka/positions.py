"""Where groups start: from what a subscription says to offsets, written into the registry once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from neuralcore.messaging.names import is_pattern
from neuralcore.messaging.transport import Cursor, Interest
from neuralcore_transports.kafka.administration import Place
from neuralcore_transports.kafka.records import Record
from neuralcore_transports.kafka.registry import Attached, Change, Channel, Starts, Wanted

if TYPE_CHECKING:
    from neuralcore_transports.kafka.transport import KafkaTransport

__all__ = ["Positions", "cursor_of", "offsets_of"]

_MARK = "@"


class Positions:
    def __init__(self, transport: KafkaTransport) -> None:
        self._transport = transport

    async def attach(self, group: str, interests: Sequence[Interest]) -> None:
        """Returns when each position is fixed. Raises ValueError for a start that cannot be found; then nothing is
        changed.
        """
        registrar = self._transport.registrar
        await registrar.refresh()
        registry = registrar.registry
        new = [each for each in interests if not registry.wants(group, each.pattern)]
        declaring = self._transport.declaring
        await declaring.ensure([each.pattern for each in new if not is_pattern(each.pattern)])
        await declaring.count_partitions({c.channel for each in new for c in registry.covered(each.pattern)})
        missing: dict[Interest, list[Channel]] = {}
        attached: set[str] = set()
        for interest in new:
            missing[interest] = [
                channel
                for channel in registry.covered(interest.pattern)
                if registry.position(group, channel.channel) is None and channel.channel not in attached
            ]
            attached.update(channel.channel for channel in missing[interest])
        ends = await self.starts([channel for channels in missing.values() for channel in channels], "new")
        changes: list[Change] = []
        for interest, channels in missing.items():
            start = interest.start
            among = registry.covered(interest.pattern)
            starts = None if start is None or not channels else await self.starts(channels, start, among=among)
            changes += [
                Attached(
                    group, channel.channel, ends[channel.channel], None if starts is None else starts[channel.channel]
                )
                for channel in channels
            ]
            changes.append(Wanted(group, interest.pattern))
        await registrar.append(*changes)

    async def starts(
        self, channels: Sequence[Channel], cursor: Cursor, *, among: Sequence[Channel] = ()
    ) -> dict[str, Starts]:
        """By channel; an id is looked up in ``among`` too. Raises ValueError, Unavailable."""
        found = await self._transport.run(self.offsets, channels, cursor, among)
        starts: dict[str, Starts] = {}
        for channel in channels:
            bands: dict[int, list[int]] = {}
            for band, place in self.places(channel):
                bands.setdefault(band, []).append(found[place])
            starts[channel.channel] = tuple(tuple(offsets) for offsets in bands.values())
        return starts

    def places(self, channel: Channel) -> list[tuple[int, Place]]:
        """Its partitions, with their bands."""
        topics = self._transport.topics.bands(channel.channel, channel.bands)
        return [(band, (topic, number)) for band, topic in enumerate(topics) for number in range(channel.partitions)]

    def _places(self, channels: Sequence[Channel]) -> list[Place]:
        return [place for channel in channels for _, place in self.places(channel)]

    def offsets(self, channels: Sequence[Channel], cursor: Cursor, among: Sequence[Channel] = ()) -> dict[Place, int]:
        browser = self._transport.browser
        places = self._places(channels)
        if isinstance(cursor, datetime):
            if cursor.tzinfo is None:
                raise ValueError(f"a cursor's time needs a zone, as in datetime.now(timezone.utc); got {cursor!r}")
            return browser.at(places, int(cursor.timestamp() * 1000))
        if cursor in ("beginning", "new"):
            return {place: ends[cursor == "new"] for place, ends in browser.ends(places).items()}
        if cursor.startswith(_MARK):
            known = offsets_of(cursor)
            return {place: known.get(place, 0) for place in places}
        return self._from_id(places, cursor, self._places(among or channels))

    def _from_id(self, places: Sequence[Place], id: str, among: Sequence[Place]) -> dict[Place, int]:
        """Kafka has no index of ids: what is kept is read until it is found. Elsewhere than in its own partition, what
        was stored in the same millisecond or later follows it.
        """
        found = self._transport.browser.scan(among, lambda record: _has_id(record, id))
        if found is None:
            raise ValueError(f"no message {id!r} is kept; start at 'beginning', 'new', or at a time")
        starts = self._transport.browser.at(places, found.timestamp()[1])
        own = found.topic(), found.partition()
        if own in starts:
            starts[own] = found.offset()
        return starts


def _has_id(record: Record, id: str) -> bool:
    known = next((value for name, value in record.headers() or () if name == "ce_id"), None)
    return known == id.encode() if known is not None else f"{record.partition()}-{record.offset()}" == id


def cursor_of(offsets: dict[Place, int]) -> str:
    return _MARK + ",".join(f"{topic}:{partition}:{offset}" for (topic, partition), offset in offsets.items())


def offsets_of(cursor: str) -> dict[Place, int]:
    """Raises ValueError for what is no such cursor."""
    try:
        found = {}
        for part in cursor[len(_MARK) :].split(","):
            topic, partition, offset = part.rsplit(":", 2)
            found[topic, int(partition)] = int(offset)
        return found
    except ValueError:
        raise ValueError(f"{cursor!r} is no cursor that browsing gave") from None
