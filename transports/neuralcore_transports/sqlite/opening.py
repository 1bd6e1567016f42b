"""Opening the file: its rights, its place, its format, and a connection set up so that it is safe beside all others."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from pathlib import Path
from typing import Final

from neuralcore.messaging.errors import TransportError
from neuralcore_transports.sqlite.clock import StoreClock
from neuralcore_transports.sqlite.errors import SQL_ERRORS, NewerStore, StoreCorrupt, StoreReadOnly, translated
from neuralcore_transports.sqlite.log import commits_behind, log_of
from neuralcore_transports.sqlite.options import SqliteOptions
from neuralcore_transports.sqlite.room import log_limit
from neuralcore_transports.sqlite.store import schema
from neuralcore_transports.sqlite.store.transaction import Book

__all__ = ["connect", "network_file_system", "open_book", "prepare"]

_NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "beegfs", "gpfs", "fuse.sshfs"}
)
_PATIENCE: Final = 5.0
"""Seconds to wait for those who have the file alone, which takes them milliseconds."""
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
_MOUNTS: Final = Path("/proc/self/mountinfo")


def connect(path: Path) -> sqlite3.Connection:
    """A connection that begins no transaction by itself, waits for nobody, and leaves checkpoints to the keeper."""
    connection = sqlite3.connect(
        path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # see checkpoint.py: before 3.51.3 it could damage the file
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute(f"PRAGMA journal_size_limit = {log_limit(path)}")
        connection.execute("PRAGMA temp_store = MEMORY")
        # The first look takes a lock that it keeps: until then, others who open or close the file may have it alone.
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
        connection.execute("PRAGMA busy_timeout = 0")
    except BaseException:
        connection.close()
        raise
    return connection


def open_book(options: SqliteOptions) -> Book:
    """For a file that is prepared. Raises TransportError."""
    try:
        return Book(connect(options.path), patience=options.busy, level=options.level)
    except SQL_ERRORS as error:
        raise translated(error, str(options.path), options.busy) from error


def prepare(options: SqliteOptions, clock: StoreClock) -> int:
    """Make the file a store of this version, unless it is one; ``clock`` joins its time. Raises TransportError.

    How many commits at the end of its log cannot be read: some, where it is damaged or was torn by a power cut.
    """
    path = options.path
    _make_file(path)
    left_over = log_of(path).exists()
    try:
        with contextlib.closing(connect(path)) as connection:
            return _make_store(connection, options, clock, left_over=left_over)
    except SQL_ERRORS as error:
        raise translated(error, str(path), options.busy) from error


def _make_file(path: Path) -> None:
    """With rights for its owner alone; the files beside it get the same ones from SQLite."""
    if path.is_dir():
        raise TransportError(f"{path} is a directory; the URL of a store names a file, as in sqlite://{path}/bus.db")
    if not path.parent.is_dir():
        raise TransportError(f"the directory {path.parent} of the store does not exist: create it first")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        pass  # never opened here: closing it would give up the locks of other connections in this process
    except PermissionError as error:
        raise StoreReadOnly(str(path)) from error
    if not os.access(path, os.R_OK | os.W_OK) or not os.access(path.parent, os.W_OK):
        raise StoreReadOnly(str(path))


def _make_store(connection: sqlite3.Connection, options: SqliteOptions, clock: StoreClock, *, left_over: bool) -> int:
    book = Book(connection, patience=options.busy, level=options.level)
    book.waiting("PRAGMA journal_mode = WAL")
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal":
        raise TransportError(f"{options.path} cannot have a write-ahead log (its journal mode is {mode!r})")
    book.waiting("BEGIN IMMEDIATE")
    try:
        broken = _unreadable(options.path) if left_over else 0
        _bring_up(connection, options.path, clock)
        clock.join(connection)
        connection.execute("COMMIT")
        return broken
    finally:
        if connection.in_transaction:
            connection.rollback()


def _unreadable(path: Path) -> int:
    """While the caller has the write lock: SQLite says how much of the log it reads when it moves that."""
    with contextlib.closing(connect(path)) as worker:
        worker.execute("PRAGMA synchronous = FULL")
        try:
            _, valid, _ = worker.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.OperationalError:  # a full disk, for one: whoever has to write will say so
            return 0
        (page,) = worker.execute("PRAGMA page_size").fetchone()
    return commits_behind(log_of(path), valid, page)


def _bring_up(connection: sqlite3.Connection, path: Path, clock: StoreClock) -> None:
    version = schema.version_of(connection)
    if version is None:
        now = clock.now()
        schema.create(connection, clock.boot, now.mono, now.wall)
    elif version > schema.VERSION:
        raise NewerStore(str(path), version, schema.VERSION)
    elif version < schema.VERSION:
        schema.migrate(connection, version)
    missing = schema.missing(connection)
    if missing:
        raise StoreCorrupt(str(path), f"it has no {missing[0]}")


def network_file_system(path: Path, mounts: Path = _MOUNTS) -> str | None:
    """The kind of file system that a path is on, if several hosts may share it; None when nobody can tell."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return None
    target, best, kind = path.resolve(), -1, None
    for line in lines:
        mount, _, rest = line.partition(" - ")
        fields = mount.split(" ")
        if len(fields) < 5:
            continue
        point = Path(_ESCAPED.sub(lambda found: chr(int(found[1], 8)), fields[4]))
        if (target == point or point in target.parents) and len(point.parts) > best:
            best, kind = len(point.parts), rest.split(" ")[0]
    return kind if kind in _NETWORK else None
