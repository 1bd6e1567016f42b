"""Deletes what every group has settled and retention does not keep, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from confluent_kafka import TopicPartition

from neuralcore_transports.kafka.administration import Place
from neuralcore_transports.kafka.registry import Channel, Position, Registry
from neuralcore_transports.kafka.window import BadMetadata, Moment, Window

if TYPE_CHECKING:
    from neuralcore_transports.kafka.transport import KafkaTransport

__all__ = ["Groups", "Progress", "groups_of"]

Groups = Mapping[str, Mapping[str, Position]]
"""Positions by channel and group."""


def groups_of(registry: Registry, channels: Sequence[Channel]) -> Groups:
    """As of now: other threads look into it, while the registry goes on changing."""
    return {channel.channel: registry.positions(channel.channel) for channel in channels}


class Progress:
    """Where all groups are on some channels, as the brokers know. Blocks."""

    def __init__(self, transport: KafkaTransport, channels: Sequence[Channel], groups: Groups) -> None:
        """``groups``: the positions on each of the channels, by group."""
        self._transport = transport
        self.places = {each.channel: [place for _, place in transport.positions.places(each)] for each in channels}
        everywhere = [place for places in self.places.values() for place in places]
        self.ends = transport.browser.ends(everywhere)
        self.windows: dict[str, dict[str, dict[Place, Window]]] = {name: {} for name in self.places}
        """By channel, group and place."""
        for group, positions in _by_group(groups).items():
            self._read(group, positions)

    def _read(self, group: str, positions: Mapping[str, Position]) -> None:
        asked = [place for name in positions for place in self.places[name]]
        commits = self._transport.administration.commits(self._transport.topics.group(group), asked)
        for name, position in positions.items():
            self.windows[name][group] = {
                place: self._window(position, place, commits.get(place)) for place in self.places[name]
            }

    def _window(self, position: Position, place: Place, commit: TopicPartition | None) -> Window:
        where = self._transport.registrar.channel_of(place[0])
        start = 0 if where is None else position.start(where[1], place[1])
        window = Window(start, epoch=position.epoch)
        if commit is not None:
            window = Window.continued(window, commit.offset, commit.metadata, Moment(), _owner_says_so)
        low = self.ends[place][0]
        return window if window.position >= low else Window(low, epoch=position.epoch)

    def lag(self, channel: str) -> dict[str, int]:
        """Unsettled messages by group."""
        return {
            group: sum(window.unsettled(self.ends[place][1]) for place, window in windows.items())
            for group, windows in self.windows[channel].items()
        }

    def stored(self, channel: str) -> int:
        return sum(self.ends[place][1] - self.ends[place][0] for place in self.places[channel])

    def settled_by_all(self, channel: str, place: Place, offset: int) -> bool:
        windows = self.windows[channel]
        return bool(windows) and all(each[place].is_settled(offset) for each in windows.values())

    def trims(self, channel: Channel, wall_ms: int) -> dict[Place, int]:
        """Offsets before which everything goes."""
        name, places = channel.channel, self.places[channel.channel]
        positions = {
            place: min((windows[place].position for windows in self.windows[name].values()), default=None)
            for place in places
        }
        if any(position is None for position in positions.values()) and not channel.kept:
            return {}  # no group has come yet
        settled = {
            place: self.ends[place][1] if position is None else position for place, position in positions.items()
        }
        kept = self._kept(channel, wall_ms) if channel.kept else settled
        wanted = {place: min(settled[place], kept[place], self.ends[place][1]) for place in places}
        return {place: offset for place, offset in wanted.items() if offset > self.ends[place][0]}

    def _kept(self, channel: Channel, wall_ms: int) -> dict[Place, int]:
        """Where what retention keeps begins: the latest that any of its bounds allows."""
        places = self.places[channel.channel]
        starts = {place: self.ends[place][0] for place in places}
        if channel.age is not None:
            for place, offset in self._transport.browser.at(places, wall_ms - round(channel.age * 1000)).items():
                starts[place] = max(starts[place], offset)
        if channel.count is not None:
            for place, count in _shares(channel.count, {p: self.ends[p][1] - starts[p] for p in places}).items():
                starts[place] = max(starts[place], self.ends[place][1] - count)
        if channel.bytes is not None:
            for place in places:
                starts[place] = max(starts[place], self._by_bytes(place, starts[place], channel.bytes // len(places)))
        return starts

    def _by_bytes(self, place: Place, start: int, most: int) -> int:
        """Kafka does not say how much a message takes: the newest are read, as far as they fit."""
        end = self.ends[place][1]
        size = 0
        while end > start:
            first = max(start, end - 500)
            for record in reversed(self._transport.browser.read({place: first}, end - first)[place]):
                if record.offset() >= end:
                    continue
                size += len(record.value() or b"")
                if size > most:
                    return int(record.offset()) + 1
            end = first
        return start


def _by_group(groups: Groups) -> dict[str, dict[str, Position]]:
    found: dict[str, dict[str, Position]] = {}
    for channel, positions in groups.items():
        for group, position in positions.items():
            found.setdefault(group, {})[channel] = position
    return found


def _owner_says_so(error: BadMetadata) -> None:
    """That a commit is damaged is for the partition's owner to tell."""


def _shares(count: int, stored: Mapping[Place, int]) -> dict[Place, int]:
    """Of so many messages, how many each partition keeps: in proportion to what it has."""
    everything = sum(stored.values())
    if everything <= count:
        return dict(stored)
    return {place: -(-count * have // everything) for place, have in stored.items()}
