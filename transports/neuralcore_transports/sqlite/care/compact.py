"""Giving room back: SQLite reuses the pages of what is gone, but a file never shrinks by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from neuralcore_transports.sqlite.care.alone import alone, must_be_known

__all__ = ["Compacted", "compact"]


@dataclass(frozen=True, slots=True)
class Compacted:
    """Bytes, its log included."""

    path: str
    before: int
    after: int

    @property
    def gained(self) -> int:
        return self.before - self.after

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "gained": self.gained}


def compact(path: Path) -> Compacted:
    """Takes as much room again while it works. Raises TransportError; nothing has changed then."""
    with _temporary_files_in(path.parent):
        with alone(path) as connection:
            must_be_known(connection, path)
            before = _size(path)
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return Compacted(str(path), before, _size(path))


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """On the disk that has the store: that of /tmp may be smaller, or memory."""
    old = os.environ.get("SQLITE_TMPDIR")
    os.environ["SQLITE_TMPDIR"] = str(folder.resolve())
    try:
        yield
    finally:
        if old is None:
            del os.environ["SQLITE_TMPDIR"]
        else:
            os.environ["SQLITE_TMPDIR"] = old


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, Path(f"{path}-wal")) if file.exists())
