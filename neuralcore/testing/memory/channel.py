"""One channel: its log of records, who has yet to settle them, its bounds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.transport import Envelope, PublishStatus
from neuralcore.testing.memory.dedup import DedupWindow
from neuralcore.testing.memory.records import Moment, Record, State
from neuralcore.testing.memory.retention import Kept

if TYPE_CHECKING:
    from neuralcore.testing.memory.position import Position

__all__ = ["Channel"]


class Channel:
    """Messages are kept while a position has them unsettled, until the first group has come, and by retention."""

    def __init__(self, config: ChannelConfig, dedup_window_ns: int) -> None:
        self.config = config
        self.log: OrderedDict[int, Record] = OrderedDict()
        self.ids: dict[str, Record] = {}
        self.positions: list[Position] = []
        self.leaving: dict[Position, None] = {}
        """Of broadcasts that are over and have something in flight."""
        self.has_group = False
        """One of them is a named group's."""
        self.open = 0
        """Records that count against the capacity: unsettled somewhere, or waiting for a first subscriber."""
        self.rejected_settlements = 0
        self._default_window_ns = dedup_window_ns
        self._dedup = DedupWindow(self._window_ns)
        self._kept = Kept()

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def _window_ns(self) -> int:
        window = self.config.dedup_window
        return self._default_window_ns if window is None else round(window * 1e9)

    def configure(self, config: ChannelConfig, now: Moment) -> None:
        self.config = config
        self._dedup.window_ns = self._window_ns
        self.trim(now)

    @property
    def holders(self) -> list[Position]:
        """Everyone who may have something of it in flight."""
        return [*self.positions, *self.leaving]

    # Publishing

    def publish(self, envelope: Envelope, seq: Callable[[], int], now: Moment) -> PublishStatus:
        if self._dedup.has(envelope, now.mono):
            return PublishStatus.DUPLICATE
        refusal = self._make_room(envelope.priority, now)
        if refusal is not None:
            return refusal
        self._dedup.add(envelope, now.mono)
        self._store(Record(seq(), envelope, now), now)
        return PublishStatus.STORED

    def _make_room(self, priority: int, now: Moment) -> PublishStatus | None:
        """None when there is room."""
        if self.config.capacity is None or self.open < self.config.capacity:
            return None
        overflow = self.config.overflow or "block"
        if overflow == "block":
            return PublishStatus.FULL
        if overflow == "reject":
            return PublishStatus.REFUSED
        if overflow == "drop_old" and self._evict(priority, now):
            return None
        return PublishStatus.DROPPED

    def _evict(self, priority: int, now: Moment) -> bool:
        """Drop the least urgent message and of those the oldest, for one that is at least as urgent.

        What is in flight or delayed keeps its slot.
        """
        queued = (record for record in self.log.values() if self._queued(record, now))
        victim = max(queued, key=lambda record: (record.envelope.priority, -record.seq), default=None)
        if victim is None or victim.envelope.priority < priority:
            return False
        self.delete(victim, now)
        return True

    def _queued(self, record: Record, now: Moment) -> bool:
        if record.waiting:
            not_before = record.envelope.not_before_ns
            return record.due <= now.mono and (not_before is None or not_before <= now.wall)
        entries = [p.entries[record.seq] for p in self.holders if record.seq in p.entries]
        return bool(entries) and all(entry.state in (State.READY, State.PARKED) for entry in entries)

    def _store(self, record: Record, now: Moment) -> None:
        self.log[record.seq] = self.ids[record.envelope.id] = record
        if self.positions:
            for position in self.positions:
                position.add(record, now)
        else:
            record.waiting = True
            self.open += 1
            self._kept.add(record)
        self.trim(now)

    # Who wants what

    def claim(self, record: Record) -> None:
        """One position more has it unsettled."""
        self._kept.remove(record)
        if record.claims == 0 and not record.waiting:
            self.open += 1
        record.waiting = False
        record.claims += 1

    def unclaim(self, record: Record, now: Moment) -> None:
        record.claims -= 1
        if record.claims == 0:
            self.open -= 1
            self._kept.add(record)
            self.trim(now)

    def attach(self, position: Position, wanted: Callable[[Record], bool], now: Moment) -> None:
        """Let a position in; what the first group does not want is nobody's from here on."""
        for record in list(self.log.values()):
            if wanted(record):
                position.add(record, now)
        self.positions.append(position)
        if position.group.name is not None:
            self.has_group = True
            for record in self.log.values():
                self._stop_waiting(record)
        self.trim(now)

    def detach(self, position: Position) -> None:
        self.positions.remove(position)
        self.has_group = any(each.group.name is not None for each in self.positions)

    def _stop_waiting(self, record: Record) -> None:
        if record.waiting:
            record.waiting = False
            self.open -= 1

    # Keeping

    def trim(self, now: Moment) -> None:
        """Forget what retention does not keep. Without one, that is what every group has settled."""
        if self.config.retention is None and not self.has_group:
            return
        for record in self._kept.excess(self.config.retention, now.mono):
            self._stop_waiting(record)
            self._forget(record)

    def delete(self, record: Record, now: Moment) -> None:
        """Take it from everyone."""
        for position in self.positions:
            position.drop(record.seq, now)
        self._kept.remove(record)
        self._stop_waiting(record)
        self._forget(record)

    def _forget(self, record: Record) -> None:
        if self.log.pop(record.seq, None) is not None and self.ids.get(record.envelope.id) is record:
            del self.ids[record.envelope.id]

    def read(self, wanted: Callable[[Record], bool]) -> Iterator[Record]:
        return (record for record in self.log.values() if wanted(record))
