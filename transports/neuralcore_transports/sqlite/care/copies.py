"""Copies of a file, and new files, with rights for their owner alone."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from errno import EDQUOT, ENOSPC
from itertools import count
from pathlib import Path

from neuralcore_transports.sqlite.errors import DiskFull, StoreReadOnly

__all__ = ["copy_file", "copy_pages", "new_file"]


def copy_pages(connection: sqlite3.Connection, path: Path) -> Path:
    """With what is still in its log. Raises DiskFull, sqlite3.Error."""
    copy = _place(path)
    try:
        with closing(sqlite3.connect(copy)) as target:
            connection.backup(target)
            return copy
    except sqlite3.DatabaseError as error:
        _forget(copy)
        if "full" in str(error):
            raise DiskFull(str(copy)) from error
    return copy_file(path)


def copy_file(path: Path) -> Path:
    """As it is, and its log beside it. Raises DiskFull."""
    copy = _place(path)
    try:
        shutil.copyfile(path, copy)
        log = Path(f"{path}-wal")
        if log.exists():
            shutil.copyfile(log, new_file(Path(f"{copy}-wal"), replace=True))
    except OSError as error:
        _forget(copy)
        if error.errno not in (ENOSPC, EDQUOT):
            raise
        raise DiskFull(str(copy)) from error
    return copy


def new_file(path: Path, *, replace: bool = False) -> Path:
    """Raises FileExistsError unless it may be replaced, StoreReadOnly."""
    if replace:
        path.unlink(missing_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except PermissionError as error:
        raise StoreReadOnly(str(path)) from error
    return path


def _place(path: Path) -> Path:
    """``PATH.before-repair``; an older copy stays, and this one gets a number."""
    for copy in _names(path):
        with suppress(FileExistsError):
            return new_file(copy)
    raise AssertionError


def _names(path: Path) -> Iterator[Path]:
    yield path.with_name(f"{path.name}.before-repair")
    yield from (path.with_name(f"{path.name}.before-repair.{number}") for number in count(2))


def _forget(copy: Path) -> None:
    for suffix in ("", "-wal", "-journal"):
        Path(f"{copy}{suffix}").unlink(missing_ok=True)
