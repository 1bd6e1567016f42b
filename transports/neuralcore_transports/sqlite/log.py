"""Reading a write-ahead log's file: how much of it is in use, and whether it breaks off before its end.

Its format: https://sqlite.org/fileformat.html#walformat. The frames of the present log stand at the file's beginning
and have its salt; what is left of an earlier one has another. SQLite takes no locks on this file, so that it may be
opened and closed beside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Final, Literal

__all__ = ["LogFile", "commits_behind", "log_of"]

_HEADER: Final = 32
_FRAME_HEADER: Final = 24


def log_of(path: Path) -> Path:
    """The log of this database."""
    return Path(f"{path}-wal")


class LogFile:
    """Of a log that may begin anew and grow, for whoever asks often: it looks on from where it was."""

    def __init__(self, log: Path) -> None:
        """Raises OSError."""
        self._file = log.open("rb", buffering=0)
        self._frames = 0

    def size(self) -> int:
        """Bytes of the file, which keeps the size that it once had."""
        return os.fstat(self._file.fileno()).st_size

    def used(self) -> int:
        """Bytes of it that are in use."""
        file = self._file.fileno()
        header = os.pread(file, _HEADER, 0)
        if len(header) < _HEADER:
            return 0
        frame = _frame(header)

        def is_used(number: int) -> bool:
            return os.pread(file, 8, _HEADER + number * frame + 8) == header[16:24]

        low = self._frames if self._frames > 0 and is_used(self._frames - 1) else 0
        high, step = low, 1
        while is_used(high):
            low, high, step = high + 1, high + step, step * 2
        while low < high:
            middle = (low + high) // 2
            if is_used(middle):
                low = middle + 1
            else:
                high = middle
        self._frames = low
        return low * frame

    def committed(self) -> int:
        """Bytes of the file without what is left of a transaction that was undone. Nobody may write meanwhile."""
        used = self.used()
        frame = used // self._frames if self._frames else 0
        while used and os.pread(self._file.fileno(), 4, _HEADER + used - frame + 4) == bytes(4):
            used -= frame
        return _HEADER + used

    def close(self) -> None:
        self._file.close()


def commits_behind(log: Path, valid: int, page: int) -> int:
    """The commits of the present log behind its first ``valid`` frames, which are those that SQLite reads: several, or
    none. They tell that it is damaged, or was torn by a power cut. A single one never was a commit: a process may die
    while it writes that.

    ``page``: bytes of a page. Nobody may write meanwhile.
    """
    try:
        with log.open("rb", buffering=0) as file:
            header = file.read(_HEADER)
            if len(header) < _HEADER:
                return 0
            found = list(_frame_headers(file, _FRAME_HEADER + page, valid))
            salt = header[16:24] if _is_sound(header) or not found else found[0][8:16]
            commits = sum(each[8:16] == salt and each[4:8] != bytes(4) for each in found)
            return commits if commits > 1 else 0
    except OSError:
        return 0


def _frame_headers(file: FileIO, frame: int, first: int) -> Iterator[bytes]:
    return (_frame_header(file, frame, number) for number in range(first, _count(file, frame)))


def _frame_header(file: FileIO, frame: int, number: int) -> bytes:
    file.seek(_HEADER + number * frame)
    return file.read(_FRAME_HEADER)


def _is_sound(header: bytes) -> bool:
    order: Literal["big", "little"] = "big" if header[3] & 1 else "little"
    one = two = 0
    for at in range(0, 24, 8):
        one = (one + int.from_bytes(header[at : at + 4], order) + two) & 0xFFFFFFFF
        two = (two + int.from_bytes(header[at + 4 : at + 8], order) + one) & 0xFFFFFFFF
    return header[24:32] == one.to_bytes(4, "big") + two.to_bytes(4, "big")


def _frame(header: bytes) -> int:
    return _FRAME_HEADER + int.from_bytes(header[8:12], "big")


def _count(file: FileIO, frame: int) -> int:
    return (file.seek(0, os.SEEK_END) - _HEADER) // frame
