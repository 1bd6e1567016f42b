"""Connections for looking after a file: one that only reads beside everybody else, one that nobody else is beside."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neuralcore.messaging.errors import TransportError
from neuralcore_transports.sqlite.errors import (
    SQL_ERRORS,
    NewerStore,
    StoreError,
    StoreInUse,
    StoreReadOnly,
    translated,
)
from neuralcore_transports.sqlite.liveness import Liveness
from neuralcore_transports.sqlite.store import schema
from neuralcore_transports.sqlite.store.transaction import is_busy, text_of

__all__ = ["alone", "must_be_known", "reading"]

_PATIENCE = 10.0


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """One transaction that only reads, beside buses that use the file. Raises TransportError."""
    _must_be_a_file(path)
    try:
        with contextlib.closing(_connect(path)) as connection:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("BEGIN")
            connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
            must_be_known(connection, path)
            yield connection
    except SQL_ERRORS as error:
        raise translated(error, str(path), _PATIENCE) from error


def _connect(path: Path) -> sqlite3.Connection:
    # Without the right to write beside it, what is not in its log is all that can be seen.
    sealed = "" if Path(f"{path}-wal").exists() or _may_write(path.parent) else "&immutable=1"
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=ro{sealed}", uri=True, timeout=_PATIENCE, isolation_level=None
    )
    connection.text_factory = text_of
    return connection


@contextmanager
def alone(path: Path, *, damaged: bool = False) -> Iterator[sqlite3.Connection]:
    """Nobody else can use the file meanwhile; ``damaged``: SQLite is to bear with it. Raises TransportError."""
    _must_be_a_file(path)
    if not (_may_write(path) and _may_write(path.parent)):
        raise StoreReadOnly(str(path))
    _must_not_be_used(path)
    connection = sqlite3.connect(path, timeout=1.0, isolation_level=None)
    try:
        connection.text_factory = text_of
        connection.execute(f"PRAGMA writable_schema = {'ON' if damaged else 'OFF'}")
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        _lock(connection, path)
        yield connection
    except SQL_ERRORS as error:
        raise translated(error, str(path), _PATIENCE) from error
    finally:
        connection.close()


def _lock(connection: sqlite3.Connection, path: Path) -> None:
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        if not is_busy(error):
            raise
        raise StoreInUse(str(path)) from error


def must_be_known(connection: sqlite3.Connection, path: Path) -> None:
    """Raises StoreError for a file with no store in it, and for one of a later version."""
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    if not any(isinstance(name, str) and name.startswith("nc_") for name in names):
        raise StoreError(str(path), "has no store in it: it is some other SQLite database, or was never used by a bus")
    with contextlib.suppress(sqlite3.Error):
        version = schema.version_of(connection)
        if version is not None and schema.VERSION < version < 1 << 16:
            raise NewerStore(str(path), version, schema.VERSION)


def _must_be_a_file(path: Path) -> None:
    if path.is_dir():
        raise TransportError(f"{path} is a directory; name the file of a store")
    if not path.is_file():
        raise TransportError(f"there is no file {path}")


def _must_not_be_used(path: Path) -> None:
    if not path.with_name(f"{path.name}-owners").exists():
        return
    liveness = Liveness(path)
    try:
        if liveness.is_anybody_alive():
            raise StoreInUse(str(path))
    finally:
        liveness.close()


def _may_write(path: Path) -> bool:
    return os.access(path, os.W_OK)
