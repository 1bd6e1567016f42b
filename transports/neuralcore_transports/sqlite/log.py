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

__all__ = ["commits_behind", "log_bytes", "log_of"]

_HEADER: Final = 32
_FRAME_HEADER: Final = 24


def log_of(path: Path) -> Path:
    """The log of this database."""
    return Path(f"{path}-wal")


def log_bytes(log: Path) -> int:
    """How much of it is in use: the file keeps the size that it once had."""
    try:
        with log.open("rb", buffering=0) as file:
            header = file.read(_HEADER)
            if len(header) < _HEADER:
                return 0
            frame = _frame(header)
            low, high = 0, _count(file, frame)
            while low < high:
                middle = (low + high) // 2
                if _frame_header(file, frame, middle)[8:16] == header[16:24]:
                    low = middle + 1
                else:
                    high = middle
            return low * frame
    except OSError:
        return 0


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
