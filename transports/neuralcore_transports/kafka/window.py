"""What one group has settled of one partition, out of order.

A classic consumer group commits one offset: everything before it is done. Of what is done behind it, nothing would be
known after a crash. So the commit's metadata has the rest: which offsets behind it are settled, how many attempts the
others have had, and up to where messages may have been handed out.

Confluent's Parallel Consumer for Java keeps its set of offsets in the same place.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from neuralcore_transports.kafka.runs import Runs

__all__ = ["METADATA_BYTES", "RESERVED", "BadMetadata", "Commit", "Handing", "Window"]

METADATA_BYTES: Final = 4096
"""What a broker takes unless ``offset.metadata.max.bytes`` says otherwise."""
RESERVED: Final = 500
"""So many messages are handed out before the next commit has to say so: no more of them count as suspects, in vain,
after a crash."""

_VERSION: Final = "nc1:"
_CLEAN: Final = 1
_SUSPECT: Final = 1


class BadMetadata(ValueError):
    """A commit's metadata that is not ours, or damaged."""


@dataclass(frozen=True, slots=True)
class Handing:
    """What is known of a message when it is handed out."""

    failed: int = 0
    suspect: bool = False


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

    def __init__(self, position: int, *, limit: int = METADATA_BYTES) -> None:
        """``limit``: bytes of metadata."""
        self.position = position
        """Everything before it is settled."""
        self._limit = limit
        self._settled = Runs()
        self._next = position
        """The offset behind the last one that was seen."""
        self._known: dict[int, Handing] = {}
        self._reserved = position
        """Messages before this may be handed out: a commit has said so."""
        self._suspects = position
        """Unsettled ones before this were in the hands of an owner that ended without a word."""
        self.changed = False
        """There is something to commit."""

    @classmethod
    def restored(cls, offset: int, metadata: str | None, *, limit: int = METADATA_BYTES) -> Window:
        """From a commit. One without metadata is somebody else's, or an old one. Raises BadMetadata."""
        window = cls(offset, limit=limit)
        if not metadata:
            return window
        if not metadata.startswith(_VERSION):
            raise BadMetadata(f"the commit's metadata begin with {metadata[:8]!r}, and ours with {_VERSION!r}")
        try:
            numbers = _numbers(b64decode(metadata[len(_VERSION) :], validate=True))
            clean = next(numbers)
            window._reserved = offset + next(numbers)
            for _ in range(next(numbers)):
                at, count = offset + next(numbers), next(numbers)
                window._known[at] = Handing(count >> 1, bool(count & _SUSPECT))
            start = offset
            for _ in range(next(numbers)):
                start += next(numbers)
                end = start + next(numbers)
                window._settled.add(start, end)
                start = end
        except (StopIteration, RuntimeError, ValueError) as error:
            raise BadMetadata(f"the commit's metadata are damaged: {metadata!r}") from error
        window._suspects = offset if clean & _CLEAN else window._reserved
        return window

    # Handing out

    def see(self, offset: int) -> Handing | None:
        """The next message of the partition; None when it is settled already. Offsets that were left out hold none."""
        if offset > self._next:
            self._pass(self._next, offset)
        self._next = max(self._next, offset + 1)
        if offset < self.position or offset in self._settled:
            return None
        found = self._known.get(offset, _FRESH)
        if offset < self._suspects and not found.suspect:
            found = self._known[offset] = Handing(found.failed, True)
        return found

    def _pass(self, start: int, end: int) -> None:
        """Nothing is there: a transaction's mark, or what compaction has removed."""
        for offset in range(max(start, self.position), end):
            if offset not in self._settled:
                self._settle(offset)

    @property
    def must_commit(self) -> bool:
        """Before more is handed out."""
        return self._next > self._reserved

    @property
    def full(self) -> bool:
        """What is settled behind the position takes about as much room as there is."""
        numbers = 2 * (len(self._settled) + len(self._known))
        return 5 * numbers > self._limit and len(self._metadata(self._reserved, clean=False)) > self._limit * 3 // 4

    # Settling

    def settle(self, offset: int) -> None:
        if offset >= self.position and offset not in self._settled:
            self._known.pop(offset, None)
            self._settle(offset)

    def _settle(self, offset: int) -> None:
        self._settled.add(offset)
        self.position = self._settled.take_from(self.position)
        self.changed = True

    def note(self, offset: int, failed: int, *, suspect: bool) -> None:
        """Attempts of one that is not settled."""
        if failed or suspect:
            self._known[offset] = Handing(failed, suspect)
        else:
            self._known.pop(offset, None)
        self.changed = True

    # Committing

    def commit(self, *, clean: bool) -> Commit:
        """What to commit, as of now. ``clean``: nothing is in anybody's hands."""
        reserved = self._next if clean else max(self._reserved, self._next + RESERVED)
        self.changed = False
        return Commit(self.position, self._metadata(reserved, clean=clean), reserved)

    def _metadata(self, reserved: int, *, clean: bool) -> str:
        parts = [_CLEAN if clean else 0, max(0, reserved - self.position), len(self._known)]
        for offset, known in sorted(self._known.items()):
            parts += (offset - self.position, known.failed << 1 | known.suspect)
        parts.append(len(self._settled))
        last = self.position
        for start, end in self._settled:
            parts += (start - last, end - start)
            last = end
        return _VERSION + b64encode(b"".join(map(_varint, parts))).decode()

    def committed(self, commit: Commit) -> None:
        """The broker has it."""
        self._reserved = max(self._reserved, commit.reserved)

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
