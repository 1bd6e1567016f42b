"""The first hundred bytes of a file: most of them are the same in every store.

https://sqlite.org/fileformat.html#the_database_header
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

__all__ = ["mend_header"]

_MAGIC: Final = b"SQLite format 3\0"
_CONSTANTS: Final[dict[int, bytes]] = {
    0: _MAGIC,
    18: b"\2\2",  # a write-ahead log
    20: b"\0@  ",  # nothing reserved, and the fractions of a page
    44: (4).to_bytes(4, "big"),  # the format of the schema
    56: (1).to_bytes(4, "big"),  # UTF-8
    72: bytes(20),
}
_SIGN: Final = b"CREATE TABLE nc_store"
"""Told from other databases by what it says of itself, in UTF-8."""
_LOOK_AT: Final = 1 << 20


def mend_header(path: Path) -> bool:
    """Write what it must be where it is not; whether anything was. Only for a file that nobody has open."""
    with path.open("r+b", buffering=0) as file:
        begin = file.read(_LOOK_AT)
        if _SIGN not in begin:
            return False
        mended = bytearray(begin[:100])
        for start, value in _CONSTANTS.items():
            mended[start : start + len(value)] = value
        size = os.fstat(file.fileno()).st_size
        page = int.from_bytes(mended[16:18], "big")
        if page & (page - 1) or (page != 1 and page < 512) or size % (page if page != 1 else 65536):
            mended[16:18] = (4096).to_bytes(2, "big")
        if mended == begin[:100]:
            return False
        file.seek(0)
        file.write(mended)
        os.fsync(file.fileno())
        return True
