"""Where one group stands on one channel: what is ready, parked behind a key, delayed or leased."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from neuralcore.testing.memory.delays import Delays
from neuralcore.testing.memory.keys import Keys
from neuralcore.testing.memory.records import Entry, Moment, Record, State

if TYPE_CHECKING:
    from neuralcore.testing.memory.channel import Channel
    from neuralcore.testing.memory.group import GroupState

__all__ = ["Position"]


class Position:
    def __init__(self, channel: Channel, group: GroupState, delays: Delays, later: Callable[[], int]) -> None:
        self.channel = channel
        self.group = group
        self.entries: dict[int, Entry] = {}
        """By the record's seq."""
        self.leased = 0
        self._delays = delays
        self._later = later
        self._ready: list[Entry] = []
        self._keys = Keys()

    # What may be delivered

    def add(self, record: Record, now: Moment) -> None:
        envelope = record.envelope
        entry = Entry(record, self, (envelope.priority, record.seq), record.due, envelope.not_before_ns)
        self.entries[record.seq] = entry
        self.channel.claim(record)
        self._enter(entry, now)

    def ready(self, entry: Entry) -> None:
        entry.state = State.READY
        heappush(self._ready, entry)
        self.group.ready(self)

    def head(self) -> Entry | None:
        """The most urgent entry whose key is free."""
        while self._ready:
            entry = self._ready[0]
            if entry.state is State.READY and self._keys.admits(entry):
                return entry
            heappop(self._ready)
            if entry.state is State.READY:
                self._keys.park(entry)
        return None

    def take(self) -> Entry:
        """The head, whose key is held from here on."""
        entry = heappop(self._ready)
        self._keys.hold(entry)
        self.leased += 1
        return entry

    # What becomes of a leased one

    def ack(self, entry: Entry, now: Moment) -> None:
        self.leased -= 1
        self._gone(entry, now)

    def nack(self, entry: Entry, delay_ns: int, pass_key: bool, now: Moment) -> None:
        """Behind its equals; with a key that is held, in its old place."""
        entry.suspect = False
        entry.due, entry.not_before = now.mono + delay_ns, None
        if entry.key is None or pass_key:
            entry.rank = (entry.rank[0], self._later())
            self._free_key(entry)
        self._come_back(entry, now)

    def release(self, entry: Entry, now: Moment) -> None:
        self._free_key(entry)
        self._come_back(entry, now)

    def suspect(self, entry: Entry, now: Moment) -> None:
        entry.suspect = True
        self.release(entry, now)

    def _come_back(self, entry: Entry, now: Moment) -> None:
        self.leased -= 1
        if self.group.ended:
            self._gone(entry, now)
        else:
            self._enter(entry, now)

    def _enter(self, entry: Entry, now: Moment) -> None:
        if not self._delays.hold(entry, now):
            self.ready(entry)

    # Leaving

    def drop(self, seq: int, now: Moment) -> Entry | None:
        """Forget a record as if it had been settled."""
        entry = self.entries.get(seq)
        if entry is not None:
            self.leased -= entry.state is State.LEASED
            self._gone(entry, now)
        return entry

    def drop_waiting(self, now: Moment) -> None:
        """Forget all that is not in flight."""
        for entry in list(self.entries.values()):
            if entry.state is not State.LEASED:
                self._gone(entry, now)

    def reset(self, records: Iterable[Record], now: Moment) -> list[Entry]:
        """Start again with these; the entries that were in flight until now."""
        old = list(self.entries.values())
        in_flight = [entry for entry in old if entry.state is State.LEASED]
        kept = list(records)
        for record in kept:
            self.channel.claim(record)
        for entry in old:
            self.drop(entry.record.seq, now)
        for record in kept:
            self.add(record, now)
            self.channel.unclaim(record, now)
        return in_flight

    def _gone(self, entry: Entry, now: Moment) -> None:
        entry.state = State.GONE
        del self.entries[entry.record.seq]
        self._free_key(entry)
        self.channel.unclaim(entry.record, now)
        if not self.leased:
            self.channel.leaving.pop(self, None)

    def _free_key(self, entry: Entry) -> None:
        following = self._keys.free(entry)
        if following is not None:
            self.ready(following)
