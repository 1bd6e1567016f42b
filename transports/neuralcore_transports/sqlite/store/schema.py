"""The tables, their version, and how an older file becomes a newer one.

Their names begin with ``nc_``, because they may stand among an application's own: a transaction over both needs one
file.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

__all__ = ["VERSION", "EntryState", "MessageState", "create", "migrate", "missing", "tables", "version_of"]

VERSION: Final = 1


class MessageState(IntEnum):
    OPEN = 0
    """Some position has it unsettled, or no group has come yet."""
    WAITING = 1
    """No group has come yet, and the channel's retention may take it."""
    KEPT = 2
    """Everyone has settled it; its channel's retention keeps it."""
    PLACED = 3
    """As OPEN, and it was published with a delay: it has an entry in every position from the beginning."""


class EntryState(IntEnum):
    READY = 1
    LEASED = 2
    DELAYED = 3
    """Until the store's time reaches ``due``."""
    PARKED = 4
    """Another message has its key."""
    DATED = 5
    """Until the wall clock reaches ``not_before``."""


# Numbers of channels, groups, positions and owners are never used twice (AUTOINCREMENT): what still names a removed one
# means nobody. Messages are numbered by ``store.next``, for the same reason and at less cost.
_TABLES: Final = """
CREATE TABLE nc_store (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL,
    next INTEGER NOT NULL,      -- the next number of a message, of a place in the order, of a lease
    registry INTEGER NOT NULL,  -- grows with every change of channels, groups, patterns and positions
    boot TEXT NOT NULL,         -- the clock: see clock.py
    shift INTEGER NOT NULL,
    mono INTEGER NOT NULL,
    wall INTEGER NOT NULL
) STRICT;

CREATE TABLE nc_channel (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    config TEXT NOT NULL,
    open INTEGER NOT NULL DEFAULT 0,        -- messages that count against the capacity
    waiting INTEGER NOT NULL DEFAULT 0,     -- messages that count as open and as kept
    kept INTEGER NOT NULL DEFAULT 0,        -- messages that retention may take
    kept_bytes INTEGER NOT NULL DEFAULT 0,
    rejected INTEGER NOT NULL DEFAULT 0,    -- settlements that came after their lease was lost
    collect_from INTEGER NOT NULL DEFAULT 0,    -- between these there may be messages that nobody wants any more
    collect_to INTEGER NOT NULL DEFAULT 0,
    collect_all INTEGER NOT NULL DEFAULT 0      -- their group was removed: without a retention they go with it
) STRICT;

CREATE TABLE nc_subscriber (       -- a group, or without a name one broadcast of its owner
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT UNIQUE,
    owner INTEGER,
    ended INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE nc_pattern (
    subscriber INTEGER NOT NULL,
    pattern TEXT NOT NULL,
    PRIMARY KEY (subscriber, pattern)
) STRICT, WITHOUT ROWID;

CREATE TABLE nc_position (      -- where one subscriber stands on one channel
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    subscriber INTEGER NOT NULL,
    channel INTEGER NOT NULL,
    start INTEGER NOT NULL,     -- it wants the messages from this number on
    ended INTEGER NOT NULL DEFAULT 0,
    entries INTEGER NOT NULL DEFAULT 0,     -- messages that it has not settled
    UNIQUE (channel, subscriber)
) STRICT;

CREATE TABLE nc_cursor (        -- what a position has taken of each priority: everything before ``next``
    position INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    next INTEGER NOT NULL,
    PRIMARY KEY (position, priority)
) STRICT, WITHOUT ROWID;

CREATE TABLE nc_message (
    seq INTEGER PRIMARY KEY,
    channel INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    state INTEGER NOT NULL,
    mono INTEGER NOT NULL,      -- when it was stored, by the store's time
    wall INTEGER NOT NULL,      -- and by the wall clock
    checksum INTEGER NOT NULL,  -- CRC-32 of all but the state
    attributes TEXT NOT NULL,   -- a JSON object
    body BLOB NOT NULL
) STRICT;
CREATE INDEX nc_message_order ON nc_message (channel, priority, seq);
CREATE INDEX nc_message_kept ON nc_message (channel, seq) WHERE state > 0 AND state < 3;
CREATE INDEX nc_message_placed ON nc_message (channel, seq) WHERE state = 3;

CREATE TABLE nc_entry (         -- a message that a position has taken and not settled, or that was placed in it
    seq INTEGER NOT NULL,
    position INTEGER NOT NULL,
    state INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    rank INTEGER NOT NULL,      -- its order among equals
    key TEXT,
    owner INTEGER,
    lease INTEGER,
    since INTEGER,
    due INTEGER NOT NULL DEFAULT 0,
    not_before INTEGER,
    failed INTEGER NOT NULL DEFAULT 0,
    suspect INTEGER NOT NULL DEFAULT 0,
    charged INTEGER NOT NULL DEFAULT 0,     -- the attempt under way is counted already
    PRIMARY KEY (seq, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX nc_entry_ready ON nc_entry (position, priority, rank) WHERE state = 1;
CREATE INDEX nc_entry_leased ON nc_entry (owner, lease) WHERE state = 2;
CREATE INDEX nc_entry_delayed ON nc_entry (due) WHERE state = 3;
CREATE INDEX nc_entry_parked ON nc_entry (position, key, priority, rank) WHERE state = 4;
CREATE INDEX nc_entry_dated ON nc_entry (not_before) WHERE state = 5;

CREATE TABLE nc_held (             -- whose turn it is with a key
    position INTEGER NOT NULL,
    key TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (position, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE nc_seen (          -- the window of deduplication, and where to find a message by its id
    channel INTEGER NOT NULL,
    key TEXT NOT NULL,          -- see seen.py
    seq INTEGER NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (channel, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE nc_owner (            -- a process (or one of several buses in it)
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    boot TEXT NOT NULL,
    deadline INTEGER NOT NULL
) STRICT;

CREATE TABLE nc_lost (             -- leases that ended against their owner's will, until it has heard of them
    owner INTEGER NOT NULL,
    lease INTEGER NOT NULL,
    PRIMARY KEY (owner, lease)
) STRICT, WITHOUT ROWID;

CREATE TABLE nc_inbox (
    address TEXT PRIMARY KEY,
    owner INTEGER NOT NULL,
    waiting INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE nc_reply (
    number INTEGER PRIMARY KEY,
    address TEXT NOT NULL,
    envelope BLOB NOT NULL
) STRICT;
CREATE INDEX nc_reply_address ON nc_reply (address, number);

CREATE TABLE nc_quarantine (       -- rows whose checksum was wrong, as they were found
    number INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL,
    channel TEXT,
    found INTEGER NOT NULL,     -- wall clock
    reason TEXT NOT NULL,
    content BLOB NOT NULL
) STRICT;
"""

_NAMES: Final = re.findall(r"^CREATE (?:TABLE|INDEX) (\w+)", _TABLES, re.MULTILINE)
_MIGRATIONS: Final[Sequence[str]] = ()
"""The n-th one makes version n + 2 of version n + 1."""


def tables() -> list[str]:
    """The statements that make them and their indexes."""
    return _statements(_TABLES)


def create(connection: sqlite3.Connection, boot: str, mono: int, wall: int) -> None:
    """In a transaction that the caller began."""
    for statement in tables():
        connection.execute(statement)
    connection.execute("INSERT INTO nc_store VALUES (1, ?, 1, 1, ?, ?, ?, ?)", (VERSION, boot, 0, mono, wall))


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """From ``version`` to VERSION, in a transaction that the caller began."""
    for script in _MIGRATIONS[version - 1 :]:
        for statement in _statements(script):
            connection.execute(statement)
    connection.execute("UPDATE nc_store SET version = ?", (VERSION,))


def version_of(connection: sqlite3.Connection) -> int | None:
    """None: the file has no store yet."""
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'nc_store'").fetchone():
        return None
    row = connection.execute("SELECT version FROM nc_store").fetchone()
    if row is None:
        raise sqlite3.DatabaseError("malformed: its table nc_store is empty")
    if not isinstance(row[0], int):
        raise sqlite3.DatabaseError("malformed: nc_store has no version")
    return row[0]


def missing(connection: sqlite3.Connection) -> list[str]:
    """The tables and indexes that a store of this version has, and this one has not."""
    there = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    return [name for name in _NAMES if name not in there]


def _statements(script: str) -> list[str]:
    """``executescript`` would commit first."""
    return [statement for statement in script.split(";\n") if statement.strip()]
