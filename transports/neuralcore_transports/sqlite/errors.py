"""What can be wrong with a store's file, each in words that say what to do.

::

    Unavailable                       (neuralcore)
    └── NotStored                     (neuralcore) nothing of a commit has happened
        ├── StoreLocked               another process keeps its lock
        ├── DiskFull
        └── StoreReadOnly
    TransportError                    (neuralcore)
    ├── StoreInUse                what needs the file for itself cannot have it
    └── StoreError
        ├── NotAStore                 the file is something else
        ├── NewerStore                written by a newer version
        └── StoreCorrupt              SQLite says that its structure is damaged
"""

from __future__ import annotations

import sqlite3
from typing import Final

from neuralcore.messaging.errors import NeuralCoreError, NotStored, TransportError, Unavailable

__all__ = [
    "SQL_ERRORS",
    "DiskFull",
    "NewerStore",
    "NotAStore",
    "StoreCorrupt",
    "StoreError",
    "StoreInUse",
    "StoreLocked",
    "StoreReadOnly",
    "translated",
]


class StoreLocked(NotStored):
    def __init__(self, path: str, seconds: float) -> None:
        super().__init__(
            "sqlite",
            f"another process has kept {path} locked for {seconds:g} s; find it with `fuser {path}`, "
            "or give it more time with ?busy=SECONDS",
        )
        self.path = path
        self.seconds = seconds


class DiskFull(NotStored):
    def __init__(self, path: str, kept: int = 0) -> None:
        left = f"; the last {kept / 1e6:.1f} MB are kept for settling what is there" if kept else ""
        super().__init__("sqlite", f"there is no room left on the disk of {path}{left}; free some space")
        self.path = path
        self.kept = kept
        """Bytes that are free, and that publishes may not have."""


class StoreReadOnly(NotStored):
    def __init__(self, path: str) -> None:
        super().__init__("sqlite", f"{path}, or the directory that it is in, may not be written to by this user")
        self.path = path


class StoreInUse(TransportError):
    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path} is in use, and this needs it for itself: close every bus and program that has it open first "
            f"(`fuser {path}` tells which)"
        )
        self.path = path


class StoreError(TransportError):
    """The file itself is at fault."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path} {what}")
        self.path = path


class NotAStore(StoreError):
    def __init__(self, path: str) -> None:
        super().__init__(path, "is no SQLite database; choose another path, or move that file away")


class NewerStore(StoreError):
    def __init__(self, path: str, version: int, known: int) -> None:
        super().__init__(
            path,
            f"was written by a newer version of neuralcore-transports (format {version}, this one knows {known}): "
            "upgrade with `pip install -U neuralcore-transports`",
        )
        self.version = version
        self.known = known


class StoreCorrupt(StoreError):
    def __init__(self, path: str, detail: str) -> None:
        super().__init__(
            path,
            f"is damaged ({detail}): see what with `neuralcore store check {path}`, "
            f"save what can be saved with `neuralcore store repair {path}`",
        )
        self.detail = detail


SQL_ERRORS: Final = (sqlite3.Error, UnicodeDecodeError)
"""What ``sqlite3`` raises; the second when SQLite's own message quotes damaged text."""

_DAMAGE: Final = ("malformed", "corrupt", "decode", "unsupported file format")


def translated(error: sqlite3.Error | UnicodeDecodeError, path: str, patience: float) -> NeuralCoreError:
    """The error that says what happened to this file."""
    text = str(error)  # error codes came with Python 3.11
    if isinstance(error, (UnicodeDecodeError, sqlite3.IntegrityError)):
        return StoreCorrupt(path, text)  # tables and indexes that contradict each other
    if "locked" in text:
        return StoreLocked(path, patience)
    if "full" in text:
        return DiskFull(path)
    if "readonly" in text:
        return StoreReadOnly(path)
    if "not a database" in text:
        return NotAStore(path)
    if any(word in text for word in _DAMAGE):
        return StoreCorrupt(path, text)
    return Unavailable("sqlite", f"{path}: {text}")
