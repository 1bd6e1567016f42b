"""Where things are in an SQLite file: as much of https://sqlite.org/fileformat.html as damaging one precisely takes.

Not for auto-vacuumed databases, which have pointer-map pages too, nor for WITHOUT ROWID tables.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DATABASE_REGIONS", "WAL_REGIONS", "Frame", "Span", "database_regions", "frames", "wal_regions"]

HEADER = 100
INTERIOR_INDEX, INTERIOR_TABLE, LEAF_INDEX, LEAF_TABLE = 2, 5, 10, 13
WAL_HEADER, FRAME_HEADER = 32, 24

DATABASE_REGIONS = (
    "header",
    "page header",
    "cell pointers",
    "table leaf cell",
    "index leaf cell",
    "interior page",
    "overflow page",
    "freelist trunk",
    "freelist leaf",
)
WAL_REGIONS = ("WAL header", "frame header", "frame body")


@dataclass(frozen=True, slots=True)
class Span:
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Frame:
    start: int
    body: int
    end: int
    page: int
    commits: bool


def database_regions(path: Path) -> dict[str, list[Span]]:
    """Spans of the file by region, those of DATABASE_REGIONS and no others; what there is none of is missing."""
    return _Walk(path.read_bytes()).regions()


def frames(wal: Path) -> list[Frame]:
    """The frames that a reader would use: those of the header's salt."""
    data = wal.read_bytes()
    size = int.from_bytes(data[8:12], "big") if len(data) >= WAL_HEADER else 0
    found: list[Frame] = []
    start, step = WAL_HEADER, FRAME_HEADER + size
    while size and start + step <= len(data) and data[start + 8 : start + 16] == data[16:24]:
        page, total = (int.from_bytes(data[at : at + 4], "big") for at in (start, start + 4))
        found.append(Frame(start, start + FRAME_HEADER, start + step, page, total > 0))
        start += step
    return found


def wal_regions(wal: Path) -> dict[str, list[Span]]:
    found = frames(wal)
    return {
        "WAL header": [Span(0, WAL_HEADER)],
        "frame header": [Span(frame.start, frame.body) for frame in found],
        "frame body": [Span(frame.body, frame.end) for frame in found],
    }


class _Walk:
    def __init__(self, data: bytes) -> None:
        if data[:16] != b"SQLite format 3\0":
            raise ValueError("this is no SQLite database, or an empty one: is everything still in its WAL?")
        self._data = data
        self._size = self._number(16, 2) if self._number(16, 2) != 1 else 65536
        self._usable = self._size - data[20]
        self._found: defaultdict[str, list[Span]] = defaultdict(list)
        if self._number(52):
            raise ValueError("auto-vacuumed databases are not understood")

    def regions(self) -> dict[str, list[Span]]:
        self._found["header"].append(Span(0, HEADER))
        roots = list(self._tree(1, schema=True))
        for root in roots:
            list(self._tree(root))
        self._freelist()
        return dict(self._found)

    def _number(self, at: int, size: int = 4) -> int:
        return int.from_bytes(self._data[at : at + size], "big")

    def _start(self, page: int) -> int:
        return (page - 1) * self._size

    def _add(self, region: str, start: int, end: int) -> None:
        self._found[region].append(Span(start, end))

    def _tree(self, page: int, *, schema: bool = False) -> Iterator[int]:
        """Yields the root pages that a tree of the schema names."""
        start = self._start(page)
        head = start + (HEADER if page == 1 else 0)
        kind, cells = self._data[head], self._number(head + 3, 2)
        interior = kind in (INTERIOR_INDEX, INTERIOR_TABLE)
        pointers = head + (12 if interior else 8)
        if interior:
            self._add("interior page", head, start + self._size)
        else:
            self._add("page header", head, pointers)
            self._add("cell pointers", pointers, pointers + 2 * cells)
        for index in range(cells):
            cell = start + self._number(pointers + 2 * index, 2)
            if interior:
                yield from self._tree(self._number(cell), schema=schema)
            if kind != INTERIOR_TABLE:
                local = self._cell(cell, kind)
                if schema and (root := self._root_of(local)):
                    yield root
        if interior:
            yield from self._tree(self._number(head + 8), schema=schema)

    def _cell(self, cell: int, kind: int) -> int:
        """Where its record begins."""
        at = cell + (4 if kind == INTERIOR_INDEX else 0)
        payload, at = self._varint(at)
        if kind == LEAF_TABLE:
            _, at = self._varint(at)
        local = self._local(payload, kind)
        if kind != INTERIOR_INDEX:
            self._add("table leaf cell" if kind == LEAF_TABLE else "index leaf cell", cell, at + local)
        if local < payload:
            self._overflow(self._number(at + local), payload - local)
        return at

    def _local(self, payload: int, kind: int) -> int:
        usable = self._usable
        most = usable - 35 if kind == LEAF_TABLE else (usable - 12) * 64 // 255 - 23
        if payload <= most:
            return payload
        least = (usable - 12) * 32 // 255 - 23
        local = least + (payload - least) % (usable - 4)
        return local if local <= most else least

    def _overflow(self, page: int, left: int) -> None:
        while page and left > 0:
            start, share = self._start(page), min(left, self._usable - 4)
            self._add("overflow page", start, start + 4 + share)
            page, left = self._number(start), left - share

    def _freelist(self) -> None:
        trunk = self._number(32)
        while trunk:
            start = self._start(trunk)
            leaves = self._number(start + 4)
            self._add("freelist trunk", start, start + 8 + 4 * leaves)
            for index in range(leaves):
                leaf = self._start(self._number(start + 8 + 4 * index))
                self._add("freelist leaf", leaf, leaf + self._size)
            trunk = self._number(start)

    def _root_of(self, record: int) -> int:
        """Column 4 of a row of sqlite_schema: type, name, tbl_name, rootpage, sql."""
        size, at = self._varint(record)
        value, types = record + size, []
        for _ in range(4):
            kind, at = self._varint(at)
            types.append(kind)
        value += sum((kind - 12) // 2 for kind in types[:3])
        return self._number(value, {1: 1, 2: 2, 3: 3, 4: 4}.get(types[3], 0)) if types[3] != 9 else 1

    def _varint(self, at: int) -> tuple[int, int]:
        value = 0
        for count in range(9):
            byte = self._data[at + count]
            if count == 8:
                return value << 8 | byte, at + 9
            value = value << 7 | byte & 0x7F
            if not byte & 0x80:
                return value, at + count + 1
        raise AssertionError
