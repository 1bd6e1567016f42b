"""What this process does with one partition for one group: which messages are out, which wait, and for what."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from heapq import heappop, heappush
from typing import Final

from msgspec import Struct

from neuralcore._core import Clock
from neuralcore.messaging.transport import Delivery, Envelope, Outcome, Settlement
from neuralcore_transports.kafka.dedup import Seen
from neuralcore_transports.kafka.keys import Keys
from neuralcore_transports.kafka.records import Record, dedup_id, due_in, opened
from neuralcore_transports.kafka.window import Commit, Moment, Window

__all__ = ["Entry", "Partition"]

_ACK: Final = Outcome.ACK
_NACK: Final = Outcome.NACK
_ATTEMPT: Final = Outcome.ATTEMPT

_AHEAD: Final = 256
_RUN_NS: Final = 250_000_000
"""A pause."""
_HELD: Final = 20_000
"""Messages that wait for their time or their key, in memory; beyond, the partition waits with them."""
_HELD_BYTES: Final = 32_000_000
"""The same, by their size; the last one may go beyond."""


class Entry(Struct, eq=False):
    """A message that is not settled, and the lease of its delivery."""

    partition: Partition
    offset: int
    envelope: Envelope
    failed: int
    suspect: bool
    rank: int
    """Where it stands among those that are ready: its offset, or behind what was there when it failed."""
    delivery: Delivery | None = None
    """While it is out."""
    attempted: bool = False
    """This attempt was stored before its handler was called."""

    @property
    def size(self) -> int:
        return len(self.envelope.body)


class Partition:
    """On the loop; nothing here waits."""

    def __init__(
        self,
        owner: object,
        key: tuple[str, int],
        channel: str,
        band: int,
        window: Window,
        *,
        below: int | None = None,
        clock: Clock,
        seen: Seen,
        taken: Callable[[int], None],
        count: Callable[[str], None],
    ) -> None:
        """``owner``: whose deliveries these are. ``below``: all of its messages are more urgent than that. ``taken``
        hears how many of what arrived wait no more.
        """
        self.owner = owner
        self.key = key
        """Topic and partition."""
        self.channel = channel
        self.band = band
        self.below = below
        self.window = window
        self.owned = True
        """This process's to hand out, settle and commit. ``disown`` ends it, and ``seek`` has it begin again."""
        self.closing = False
        """Nothing more is handed out: it moves to another process, or the group to another position in it."""
        self.in_transaction = False
        """A transaction has the next commit: nothing may be committed past it."""
        self._clock = clock
        self._seen = seen
        self._taken = taken
        self._count = count
        self._buffer: deque[Record] = deque()
        self._entries: dict[int, Entry] = {}
        self._ready: list[tuple[int, int]] = []
        """Rank and offset; a heap, as the next one: monotonic time and offset."""
        self._delayed: list[tuple[int, int]] = []
        self._end = 0
        """Offsets before it that do not arrive hold no message."""
        self._keys = Keys()
        self._held = 0
        """Bytes of those that wait for their time or their key."""
        self.in_flight = 0
        self.demanded = 0
        """How many more were wanted when it was last asked, before others were."""
        self._run = 0
        """Messages that were handed out without a pause."""
        self._last = 0

    # Arriving

    def arrived(self, records: list[Record]) -> None:
        if self.owned:
            self._buffer.extend(records)

    def ended(self, offset: int) -> bool:
        """Nothing more is before that. Whether there is something to commit."""
        self._end = offset
        return self.owned and not self._buffer and self.window.skip(offset)

    @property
    def ahead(self) -> int:
        """How many more are likely to be handed out soon: the next commit says that they may be. After a crash they
        are suspects in vain, so it is none where messages come one by one, and none that nobody demands.
        """
        return min(max(self._run - 1, len(self._buffer)), self.demanded, _AHEAD)

    def wants_commit(self, now: int) -> bool:
        """The broker is to hear of something, or of more that may be handed out, or of less."""
        if now - self._last > _RUN_NS:
            self._run = 0
        room, ahead = self.window.reserved - self.window.next, self.ahead
        return self.window.changed or room < ahead // 2 or (room == 0 < ahead) or room > 2 * ahead

    @property
    def blocked(self) -> bool:
        """More can be handed out after a commit that says so."""
        return bool(self._buffer) and self._buffer[0].offset() >= self.window.reserved

    @property
    def buffered(self) -> int:
        return len(self._buffer)

    @property
    def due(self) -> int | None:
        """Monotonic time at which something that waits is ready."""
        return self._delayed[0][0] if self._delayed else None

    # Handing out

    def take(self, interest: int, limit: int, now: int) -> list[Delivery]:
        found: list[Delivery] = []
        arrived = len(self._buffer)
        while len(found) < limit and self.owned and not self.closing and (entry := self._next(now)) is not None:
            if entry.envelope.key is not None:
                self._keys.hold(entry.envelope.key, entry.offset)
            entry.delivery = Delivery(
                envelope=entry.envelope,
                interest=interest,
                attempt=entry.failed + 1,
                suspect=entry.suspect,
                lease=entry,
            )
            found.append(entry.delivery)
        self.in_flight += len(found)
        if found:
            self._run = self._run + len(found) if now - self._last <= _RUN_NS else len(found)
            self._last = now
        if read := arrived - len(self._buffer):
            self._taken(read)
            if not self._buffer:
                self.window.skip(self._end)
        return found

    def _next(self, now: int) -> Entry | None:
        delayed, ready = self._delayed, self._ready
        while delayed and delayed[0][0] <= now:
            entry = self._entries[heappop(delayed)[1]]
            self._held -= entry.size
            heappush(ready, (entry.rank, entry.offset))
        buffer = self._buffer
        while True:
            fresh = buffer[0].offset() if buffer else None
            if fresh is not None and not self._may_read(fresh):
                fresh = None
            if fresh is not None and fresh >= self.window.reserved:
                self.window.skip(fresh)  # room is kept for messages, not for what holds none
                if not ready or ready[0][0] > fresh:
                    return None  # after the next commit
                fresh = None
            if ready and (fresh is None or ready[0][0] <= fresh):
                entry = self._entries[heappop(ready)[1]]
            elif fresh is not None:
                found = self._read(buffer.popleft(), fresh, now)
                if found is None:
                    continue
                entry = found
            else:
                return None
            if entry.envelope.key is None or self._admits(entry):
                return entry

    def _may_read(self, offset: int) -> bool:
        """Whatever waits ends by itself, so there will be room again."""
        if len(self._delayed) + self._keys.parked >= _HELD or self._held >= _HELD_BYTES:
            return False
        return self.window.told_of(offset) or not self.window.full  # it takes no more of a commit than it does already

    def _read(self, record: Record, offset: int, now: int) -> Entry | None:
        """The next of what arrived, if it is ready."""
        known = self.window.see(offset)
        if known is None:
            return None
        envelope, due_at = opened(record, self.channel)
        if self._seen.again(dedup_id(envelope), offset, now):
            self.window.settle(offset)
            self._count("duplicates_suppressed")
            return None
        entry = Entry(self, offset, envelope, known.failed, known.suspect, offset)
        self._entries[offset] = entry
        if not due_at and not known.due_ms:
            return entry
        again = known.due_ms * 1_000_000 - now if known.due_ms else 0
        due = max(due_in(record, due_at, self._clock.time_ns()) if due_at else 0, again)
        if due <= 0:
            return entry
        if again > 0 and self._admits(entry, park=False):  # it has failed, and its key waits for it
            self._keys.hold(envelope.key, offset)
        self._wait(entry, now + due)
        return None

    def _wait(self, entry: Entry, until: int) -> None:
        heappush(self._delayed, (until, entry.offset))
        self._held += entry.size

    def _admits(self, entry: Entry, *, park: bool = True) -> bool:
        key = entry.envelope.key
        if self._keys.admits(key, entry.offset):
            return True
        if park:
            assert key is not None
            self._keys.park(key, (entry.rank, entry.offset))
            self._held += entry.size
        return False

    # Settling

    def holds(self, delivery: Delivery) -> bool:
        entry = delivery.lease
        return self.owned and type(entry) is Entry and entry.delivery is delivery

    def settle(self, settlement: Settlement, now: int) -> bool:
        """False when the delivery is not this process's any more."""
        if not self.holds(settlement.delivery):
            return False
        entry, outcome = settlement.delivery.lease, settlement.outcome
        assert type(entry) is Entry
        if outcome is _ATTEMPT and self.closing:  # too late to begin: whoever comes next does
            entry.delivery = None
            self.in_flight -= 1
            self._released(entry)
            return False
        if outcome is _ATTEMPT:
            entry.attempted = True
            self.window.note(entry.offset, entry.failed + 1, suspect=True)
            return True
        entry.delivery = None
        self.in_flight -= 1
        if outcome is _ACK:
            self.window.settle(entry.offset)
            del self._entries[entry.offset]
            self._free_key(entry)
        elif outcome is _NACK:
            self._failed(entry, settlement, now)
        else:
            self._released(entry)
        return True

    def _failed(self, entry: Entry, settlement: Settlement, now: int) -> None:
        entry.failed += 1
        entry.suspect = entry.attempted = False
        delay = settlement.delay_ns
        due_ms = (now + delay) // 1_000_000 if delay else 0
        self.window.note(entry.offset, entry.failed, suspect=False, due_ms=due_ms)
        if entry.envelope.key is None or settlement.pass_key:
            last = self._buffer[-1].offset() if self._buffer else self.window.next
            entry.rank = max(last, self.window.next) + 1
            self._free_key(entry)
        if delay:
            self._wait(entry, now + delay)
        else:
            heappush(self._ready, (entry.rank, entry.offset))

    def _released(self, entry: Entry) -> None:
        if entry.attempted:
            entry.attempted = False
            self.window.note(entry.offset, entry.failed, suspect=entry.suspect)
        self._free_key(entry)
        heappush(self._ready, (entry.rank, entry.offset))

    def _free_key(self, entry: Entry) -> None:
        if entry.envelope.key is None:
            return
        following = self._keys.free(entry.envelope.key, entry.offset)
        if following is not None:
            self._held -= self._entries[following[1]].size
            heappush(self._ready, following)

    # Ending

    @property
    def out(self) -> list[Delivery]:
        """What is in somebody's hands."""
        return [entry.delivery for entry in self._entries.values() if entry.delivery is not None]

    def disown(self) -> list[Delivery]:
        """It is not this process's any more: nothing of it is handed out, settled or committed. What was out, and is
        lost; nothing when that was said before.
        """
        if not self.owned:
            return []
        self.owned = False
        return self.out

    def give_up(self, *, suspects: bool) -> Commit:
        """The last commit, after which it is disowned. ``suspects``: who is next is to take for suspects what is still
        out.
        """
        self.disown()
        for entry in self._entries.values():
            if entry.delivery is not None and (suspects or entry.attempted):
                failed = entry.failed + (entry.attempted and suspects)
                self.window.note(entry.offset, failed, suspect=suspects or entry.suspect)
        return self.window.commit(clean=True, now=Moment.now(self._clock))

    def is_at(self, window: Window) -> bool:
        """Nobody has taken it away since, and the group is at the same position."""
        return self.owned and self.window is window

    def commit(self, also: Collection[int]) -> Commit:
        """What the broker is to hear now. ``also``: as in Window.commit."""
        return self.window.commit(clean=False, ahead=self.ahead, also=also, now=Moment.now(self._clock))

    def seek(self, window: Window) -> list[Delivery]:
        """Go on elsewhere, also if it was disowned; what was out, and cannot be settled any more."""
        out = self.out
        self.owned = True
        self.window = window
        self._buffer.clear()
        self._entries.clear()
        self._ready.clear()
        self._delayed.clear()
        self._keys = Keys()
        self._held = 0
        self._end = 0
        self.in_flight = 0
        self.closing = False
        for delivery in out:
            entry = delivery.lease
            assert type(entry) is Entry
            entry.delivery = None
        return out
