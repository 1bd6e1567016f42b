"""What a disk holds, and what it would hold after its power was cut, by the log that ``powercut.c`` writes.

The model, which is ext4's with ordered data, and harsher where it is cheap:

* A file's contents are durable as of the beginning of its last successful fsync or fdatasync. What came later is lost
  (``none``), kept (``all``), or kept in a random subset of sectors of 512 or 4096 bytes, sizes included, of which at
  most one a file is torn in its middle (``random``).
* A name is durable once its folder was synced. A new file's name is also durable once the file itself was
  (``strict=True`` takes that back). Unlinking and renaming wait for the folder; in ``random`` a prefix of what is
  outstanding has happened, for a journal keeps their order.
* What failed to be synced is never made durable by a later sync, as on Linux, where a failed fsync forgets it.
* Folders themselves are durable at once. ``-shm`` files are nobody's business: gone, or in ``random`` perhaps noise.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path, PurePosixPath
from typing import Literal

__all__ = ["CannotTell", "Kind", "Mode", "Platter", "Record", "records"]

Mode = Literal["none", "all", "random"]
HEAD = struct.Struct("<IIQQii")
SHARES = (0.0, 0.1, 0.5, 0.9, 1.0)


class Kind(IntEnum):
    WRITE = 1
    TRUNCATE = 2
    EXTEND = 3
    SYNC = 4
    SYNC_NAMES = 5
    SYNC_ALL = 6
    SYNC_FAILED = 7
    CREATE = 8
    OPEN = 9
    UNLINK = 10
    RENAME = 11
    LINK = 12
    VOID = 13
    SHORT = 14
    DOUBT = 15
    WITNESS = 16
    UNSEEN = 17


class CannotTell(RuntimeError):
    """Something was done that the shim cannot follow, so that no honest image can be made."""


@dataclass(frozen=True, slots=True)
class Record:
    position: int
    kind: Kind
    inode: int
    offset: int
    process: int
    data: bytes


def records(log: bytes, end: int) -> Iterator[Record]:
    position = 0
    while position < end:
        kind, length, inode, offset, process, _ = HEAD.unpack_from(log, position)
        start = position + HEAD.size
        yield Record(position, Kind(kind), inode, offset, process, log[start : start + length])
        position = start + length


@dataclass(slots=True)
class Change:
    position: int
    kind: Kind
    offset: int
    data: bytes
    forgotten: bool = False
    """A sync of it failed."""

    def apply(self, content: bytearray) -> None:
        if self.kind is Kind.TRUNCATE and self.offset < len(content):
            del content[self.offset :]
        elif self.kind is Kind.WRITE:
            _put(content, self.offset, self.data)
        else:
            _grow(content, self.offset)


@dataclass(slots=True, eq=False)
class File:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Change] = field(default_factory=list)

    def sync(self, upto: int) -> None:
        later = []
        for change in self.pending:
            if change.forgotten or change.position >= upto:
                later.append(change)
            else:
                change.apply(self.durable)
        self.pending = later

    def content(self, mode: Mode, rng: random.Random) -> bytearray:
        content = bytearray(self.durable)
        if mode == "all":
            for change in self.pending:
                change.apply(content)
        elif mode == "random":
            self._apply_some(content, rng)
        return content

    def _apply_some(self, content: bytearray, rng: random.Random) -> None:
        share, sector = rng.choice(SHARES), rng.choice((512, 4096))
        kept = [part for change in self.pending for part in _sectors(change, sector) if rng.random() < share]
        torn = rng.randrange(len(kept)) if kept and rng.random() < 0.3 else -1
        for index, change in enumerate(kept):
            if index == torn and change.kind is Kind.WRITE:
                change.data = change.data[: rng.randrange(len(change.data) + 1)]
            change.apply(content)


@dataclass(slots=True)
class NameChange:
    position: int
    file: File
    gone: str | None
    new: str | None

    def apply(self, names: dict[str, File]) -> None:
        if self.gone is not None and names.get(self.gone) is self.file:
            del names[self.gone]
        if self.new is not None:
            names[self.new] = self.file

    def within(self, folder: str) -> bool:
        return any(name is not None and _folder(name) == folder for name in (self.gone, self.new))


class Platter:
    """Feed it the records in their order; at any moment ask for the image."""

    def __init__(self, base: dict[str, tuple[int, bytes]], *, strict: bool = False) -> None:
        self.names: dict[str, File] = {}
        self.witnessed: list[bytes] = []
        self.trouble: list[str] = []
        self._strict = strict
        self._doubtful: list[tuple[File, Change]] = []
        self._files: dict[int, File] = {}
        self._gone: set[int] = set()
        self._changes: dict[int, tuple[File, Change]] = {}
        self._name_changes: list[NameChange] = []
        for name, (inode, content) in base.items():
            self.names[name] = self._files.setdefault(inode, File(bytearray(content)))
        self._durable_names = dict(self.names)

    def feed(self, record: Record) -> None:
        getattr(self, f"_on_{record.kind.name.lower()}")(record)

    def image(self, target: Path, mode: Mode, rng: random.Random) -> None:
        if self.trouble:
            raise CannotTell("; ".join(dict.fromkeys(self.trouble)))
        target.mkdir(parents=True)
        names = self._names(mode, rng)
        contents = {id(file): file.content(mode, rng) for _, file in sorted(names.items())}
        for name, file in sorted(names.items()):
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents[id(file)])
            path.chmod(0o600)
            if mode == "random" and name.endswith("-wal") and rng.random() < 0.3:
                path.with_name(name.removesuffix("-wal") + "-shm").write_bytes(rng.randbytes(32768))

    def unsynced(self) -> dict[str, int]:
        """By name: bytes that a cut now could lose."""
        return {
            name: lost
            for name, file in sorted(self.names.items())
            if (lost := sum(len(c.data) for c in file.pending if c.kind is Kind.WRITE))
        }

    def doubt(self, position: int) -> None:
        """The process that made this change was killed in it: it was done, or not, or in part."""
        found = self._changes.get(position)
        if found:
            self._doubtful.append(found)

    def agrees(self, name: str, real: bytearray) -> bool:
        """Whether the file as it really is is what the log says, doubtful changes aside. Changes ``real``."""
        file = self.names[name]
        content = file.content("all", random.Random(0))
        for change in (change for owner, change in self._doubtful if owner is file):
            if change.kind is not Kind.WRITE:
                return True
            for side in (content, real):
                _put(side, change.offset, bytes(len(change.data)))
        return content == real

    def _names(self, mode: Mode, rng: random.Random) -> dict[str, File]:
        if mode == "all":
            return dict(self.names)
        names = dict(self._durable_names)
        if mode == "random":
            for change in self._name_changes[: rng.randint(0, len(self._name_changes))]:
                change.apply(names)
        return names

    # --- contents

    def _change(self, record: Record) -> None:
        if record.inode in self._gone:
            return
        file = self._files.get(record.inode)
        if file is None:
            self.trouble.append(f"inode {record.inode} was written, and nobody saw it opened")
            return
        change = Change(record.position, record.kind, record.offset, record.data)
        file.pending.append(change)
        self._changes = {record.position: (file, change)}

    _on_write = _on_truncate = _on_extend = _change

    def _on_void(self, record: Record) -> None:
        found = self._changes.get(record.offset)
        if found:
            found[0].pending.remove(found[1])

    def _on_short(self, record: Record) -> None:
        found = self._changes.get(record.offset)
        if found:
            found[1].data = found[1].data[: record.inode]

    def _on_doubt(self, record: Record) -> None:
        self.doubt(record.offset)

    # --- syncing

    def _on_sync(self, record: Record) -> None:
        file = self._files.get(record.inode)
        if file is None:
            return
        file.sync(record.offset)
        if not self._strict:
            self._settle_names(lambda change: change.file is file and change.position < record.offset)

    def _on_sync_names(self, record: Record) -> None:
        folder = record.data.decode()
        self._settle_names(lambda change: change.position < record.offset and change.within(folder))

    def _on_sync_all(self, record: Record) -> None:
        for file in self._files.values():
            file.sync(record.offset)
        self._settle_names(lambda change: change.position < record.offset)

    def _on_sync_failed(self, record: Record) -> None:
        file = self._files.get(record.inode)
        for change in file.pending if file else ():
            change.forgotten = change.forgotten or change.position < record.offset

    def _settle_names(self, due: Callable[[NameChange], bool]) -> None:
        later = []
        for change in self._name_changes:
            if due(change):
                change.apply(self._durable_names)
            else:
                later.append(change)
        self._name_changes = later

    # --- names

    def _rename(self, record: Record, file: File, gone: str | None, new: str | None) -> None:
        change = NameChange(record.position, file, gone, new)
        change.apply(self.names)
        self._name_changes.append(change)

    def _on_create(self, record: Record) -> None:
        self._gone.discard(record.inode)
        file = self._files[record.inode] = File()
        self._rename(record, file, None, record.data.decode())

    def _on_open(self, record: Record) -> None:
        name = record.data.decode()
        file = self._files.get(record.inode)
        if file is None:  # its creator was killed before it could tell
            self._on_create(record)
        elif self.names.get(name) is not file:
            self._rename(record, file, None, name)

    def _on_link(self, record: Record) -> None:
        self._rename(record, self._files[record.inode], None, record.data.decode())

    def _on_unlink(self, record: Record) -> None:
        file = self._files.get(record.inode)
        if file is None:
            return
        self._rename(record, file, record.data.decode(), None)
        self._forget(record.inode, file)

    def _on_rename(self, record: Record) -> None:
        old, new = record.data.decode().split("\0")
        replaced = self.names.get(new)
        file = self._files.get(record.inode)
        if file is None:
            self.trouble.append(f"{old} was renamed, and nobody saw it made")
            return
        self._rename(record, file, old, new)
        if replaced is not None and replaced is not file:
            self._forget(next((i for i, f in self._files.items() if f is replaced), 0), replaced)

    def _forget(self, inode: int, file: File) -> None:
        if file not in self.names.values():
            self._files.pop(inode, None)
            self._gone.add(inode)

    def _on_witness(self, record: Record) -> None:
        self.witnessed.extend(record.data.splitlines())

    def _on_unseen(self, record: Record) -> None:
        self.trouble.append(record.data.decode())


def _sectors(change: Change, size: int) -> Iterator[Change]:
    if change.kind is not Kind.WRITE:
        yield Change(change.position, change.kind, change.offset, b"")
        return
    start, end = change.offset, change.offset + len(change.data)
    while start < end:
        stop = min(end, (start // size + 1) * size)
        piece = change.data[start - change.offset : stop - change.offset]
        yield Change(change.position, Kind.WRITE, start, piece)
        start = stop


def _put(content: bytearray, offset: int, data: bytes) -> None:
    _grow(content, offset)
    content[offset : offset + len(data)] = data


def _grow(content: bytearray, size: int) -> None:
    if size > len(content):
        content.extend(bytes(size - len(content)))


def _folder(name: str) -> str:
    parent = str(PurePosixPath(name).parent)
    return "" if parent == "." else parent
