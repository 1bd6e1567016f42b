"""What one group has settled of one partition, out of order.

A classic consumer group commits one offset: everything before it is done. Of what is done behind it, nothing would be
known after a crash. So the commit's metadata has the rest: which offsets behind it are settled, how many attempts the
others have had, and up to where messages may have been handed out.

Confluent's Parallel Consumer for Java keeps its set of offsets in the same place.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Final

from neuralcore._core import Clock
from neuralcore_transports.kafka.runs import Runs

__all__ = ["METADATA_BYTES", "BadMetadata", "Commit", "Handing", "Moment", "Window"]

METADATA_BYTES: Final = 4096
"""What a broker takes unless ``offset.metadata.max.bytes`` says otherwise."""
_VERSION: Final = "nc1:"
_CLEAN: Final = 1
_DATED: Final = 2
_SUSPECT: Final = 1
_WAITS: Final = 2


class BadMetadata(ValueError):
    """A commit's metadata that is not ours, or damaged."""


@dataclass(frozen=True, slots=True)
class Handing:
    """What is known of a message when it is handed out."""

    failed: int = 0
    suspect: bool = False
    due_ms: int = 0
    """It waits for its retry until then: this process's own clock, that of Moment.steady_ms."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One instant: by the wall clock, which the next owner has too, and by this process's own, which never jumps."""

    wall_ms: int = 0
    steady_ms: int = 0

    @classmethod
    def now(cls, clock: Clock) -> Moment:
        return cls(clock.time_ns() // 1_000_000, clock.monotonic_ns() // 1_000_000)


@dataclass(frozen=True, slots=True)
class Commit:
    """What the broker is to keep."""

    offset: int
    metadata: str
    reserved: int
    """Messages before this may be handed out once the broker has it."""


_FRESH: Final = Handing()


class Window:
    """Synchronous; one owner at a time."""

    def __init__(self, position: int, *, epoch: int = 0, limit: int = METADATA_BYTES) -> None:
        """``epoch``: of the position that the group was given; one of another epoch is not this one's continuation.
        ``limit``: bytes of metadata.
        """
        self.epoch = epoch
        self.position = position
        """Everything before it is settled."""
        self._limit = limit
        self._settled = Runs()
        self.next = position
        """The offset behind the last one that was seen."""
        self._known: dict[int, Handing] = {}
        self.reserved = position
        """Messages before this may be handed out: a commit has said so. For more there has to be one first."""
        self._suspects = position
        """Unsettled ones before this were in the hands of an owner that ended without a word."""
        self._now = Moment()
        """Of the last commit, or when this owner began."""
        self._told = position
        """Of messages before this an earlier owner's commit may have said something."""
        self._measured = (0, 0), False
        """Runs and notes, and whether they were too much for new ones."""
        self.changed = False
        """There is something to commit."""
        self.truncated = 0
        """How often a commit had to leave something out."""

    @classmethod
    def restored(
        cls, offset: int, metadata: str | None, *, now: Moment | None = None, limit: int = METADATA_BYTES
    ) -> Window:
        """From a commit. One without metadata is somebody else's, or an old one. Raises BadMetadata.

        A retry waits for what is left of its time by the wall clock, and never longer than what was left of it when
        the commit was made, however the two owners' clocks differ.
        """
        window = cls(offset, limit=limit)
        now = window._now = now or Moment()
        if not metadata:
            return window
        if not metadata.startswith(_VERSION):
            raise BadMetadata(f"the commit's metadata begin with {metadata[:8]!r}, and ours with {_VERSION!r}")
        try:
            numbers = _numbers(b64decode(metadata[len(_VERSION) :], validate=True))
            flags = next(numbers)
            window.epoch = next(numbers)
            window.reserved = offset + next(numbers)
            waiting_since = next(numbers)
            waiting = dict[int, int]()
            for _ in range(next(numbers)):
                at, count = offset + next(numbers), next(numbers)
                window._known[at] = Handing(count >> 2, bool(count & _SUSPECT))
                if count & _WAITS:
                    waiting[at] = waiting_since + next(numbers)
            start = offset
            for _ in range(next(numbers)):
                start += next(numbers)
                end = start + next(numbers)
                window._settled.add(start, end)
                start = end
            made_ms = next(numbers) if flags & _DATED else now.wall_ms
            for at, due in waiting.items():
                left = min(due - now.wall_ms, due - made_ms)
                if left > 0:
                    known = window._known[at]
                    window._known[at] = Handing(known.failed, known.suspect, now.steady_ms + left)
        except (StopIteration, RuntimeError, ValueError) as error:
            raise BadMetadata(f"the commit's metadata are damaged: {metadata!r}") from error
        window._told = max(window._settled.end or 0, max(window._known, default=-1) + 1)
        window._suspects = offset if flags & _CLEAN else window.reserved
        window.reserved = offset  # what an earlier owner has reserved is not ours to hand out
        return window

    @classmethod
    def continued(
        cls, fresh: Window, offset: int, metadata: str | None, now: Moment, damaged: Callable[[BadMetadata], None]
    ) -> Window:
        """Where an earlier owner stopped, or ``fresh`` if that was at another position of the group's.

        ``damaged`` hears of metadata that cannot be read: then the offset alone counts.
        """
        if offset < 0:
            return fresh
        try:
            window = cls.restored(offset, metadata, now=now)
        except BadMetadata as error:
            damaged(error)
            metadata, window = None, cls(offset)
        if not metadata:  # nobody who knows epochs
            window.epoch = fresh.epoch
        return window if window.epoch == fresh.epoch else fresh

    def is_settled(self, offset: int) -> bool:
        return offset < self.position or offset in self._settled

    def unsettled(self, end: int) -> int:
        """How many before ``end`` are not settled."""
        settled = sum(min(behind, end) - start for start, behind in self._settled if start < end)
        return max(0, end - self.position - settled)

    # Handing out

    def see(self, offset: int) -> Handing | None:
        """The next message of the partition; None when it is settled already. Offsets that were left out hold none."""
        if offset == self.next and offset >= self._told and offset >= self._suspects:
            self.next = offset + 1
            return _FRESH
        self.skip(offset)
        self.next = max(self.next, offset + 1)
        if offset < self.position or offset in self._settled:
            return None
        found = self._known.get(offset, _FRESH)
        if offset < self._suspects and not found.suspect and not found.due_ms:  # what waits was in nobody's hands
            found = self._known[offset] = Handing(found.failed, True)
        return found

    def skip(self, end: int) -> bool:
        """Between what was seen last and that is no message: a transaction's mark, or what compaction has removed.
        Whether that is news.
        """
        if end <= self.next:
            return False
        self._pass(self.next, end)
        self.next = end
        return True

    def _pass(self, start: int, end: int) -> None:
        start = max(start, self.position)
        for first, behind in list(self._settled):
            if behind <= start or first >= end:
                continue
            self._fill(start, first)
            start = behind
        self._fill(start, end)

    def _fill(self, start: int, end: int) -> None:
        if start < end:
            for offset in [offset for offset in self._known if start <= offset < end]:
                del self._known[offset]
            self._settled.add(start, end)
            self.position = self._settled.take_from(self.position)
            self.changed = True

    def told_of(self, offset: int) -> bool:
        """An earlier owner's commit said something of this message, or of a later one."""
        return offset < self._told

    @property
    def full(self) -> bool:
        """What is settled behind the position takes about as much room as there is."""
        parts = len(self._settled), len(self._known)
        if 10 * (parts[0] + parts[1]) <= self._limit:
            return False
        if parts != self._measured[0]:  # it is asked for each message
            metadata = self._metadata(self.reserved, self._known, list(self._settled), clean=False)
            self._measured = parts, len(metadata) > self._limit * 3 // 4
        return self._measured[1]

    # Settling

    def settle(self, offset: int) -> None:
        if offset == self.position:
            self.position = self._settled.take_from(offset + 1)
        elif offset > self.position and offset not in self._settled:
            self._settled.add(offset)
        else:
            return
        self._known.pop(offset, None)
        self.changed = True

    def note(self, offset: int, failed: int, *, suspect: bool, due_ms: int = 0) -> None:
        """Attempts of one that is not settled, and when it comes again, as in Handing."""
        if failed or suspect or due_ms:
            self._known[offset] = Handing(failed, suspect, due_ms)
        else:
            self._known.pop(offset, None)
        self.changed = True

    # Committing

    def commit(self, *, clean: bool, ahead: int = 0, also: Collection[int] = (), now: Moment | None = None) -> Commit:
        """What to commit, as of ``now``. ``clean``: nothing is in anybody's hands but what is noted as suspect.
        ``ahead``: so many more messages may be handed out then. ``also``: offsets that are settled if, and only if, the
        broker takes this commit.
        """
        self._now = now or self._now
        clean = clean and self._suspects <= self.next  # those that were not seen yet stay suspects
        reserved = self.next if clean else max(self._suspects, self.next + ahead)
        self.reserved = min(self.reserved, reserved)
        self.changed = bool(also)
        told = self._supposing(also) if also else self
        return Commit(told.position, told._fitting(reserved, clean=clean), reserved)

    def _supposing(self, settled: Collection[int]) -> Window:
        """The same, if these were settled as well."""
        other = copy(self)
        other._settled, other._known = Runs(self._settled), dict(self._known)
        for offset in settled:
            other.settle(offset)
        return other

    def _fitting(self, reserved: int, *, clean: bool) -> str:
        """What fits of it: first the times of retries go, then what is settled behind the position, which comes twice
        then, and last the attempts.
        """
        known, runs = self._known, list(self._settled)
        metadata = self._metadata(reserved, known, runs, clean=clean)
        if len(metadata) > self._limit:
            self.truncated += 1
            known = {offset: Handing(each.failed, each.suspect) for offset, each in known.items()}
            metadata = self._metadata(reserved, known, runs, clean=clean)
        while len(metadata) > self._limit and (known or runs):
            if runs:
                runs = runs[: len(runs) // 2]
            else:
                known = dict(sorted(known.items())[: len(known) // 2])
            metadata = self._metadata(reserved, known, runs, clean=clean)
        return metadata

    def _metadata(
        self, reserved: int, notes: Mapping[int, Handing], runs: Sequence[tuple[int, int]], *, clean: bool
    ) -> str:
        dues = [known.due_ms for known in notes.values() if known.due_ms]
        first, wall = min(dues, default=0), self._now.wall_ms - self._now.steady_ms
        since = max(0, first + wall) if dues else 0
        flags = (_CLEAN if clean else 0) | (_DATED if dues else 0)
        parts = [flags, self.epoch, max(0, reserved - self.position), since, len(notes)]
        for offset, known in sorted(notes.items()):
            waits = known.due_ms > 0
            parts += (offset - self.position, known.failed << 2 | waits << 1 | known.suspect)
            if waits:
                parts.append(known.due_ms - first)
        parts.append(len(runs))
        last = self.position
        for start, end in runs:
            parts += (start - last, end - start)
            last = end
        if dues:
            parts.append(self._now.wall_ms)
        return _VERSION + b64encode(b"".join(map(_varint, parts))).decode()

    def committed(self, commit: Commit) -> None:
        """The broker has it, and nothing later was begun."""
        self.reserved = commit.reserved

    def not_committed(self) -> None:
        """The broker has it not, as far as is known."""
        self.changed = True


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _numbers(data: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            yield number
            number = shift = 0
