"""The tables, their version, and how an older file becomes a newer one.

Their names begin with ``nc_``, because they may stand among an application's own: a transaction over both needs one file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

__all__ = ["VERSION", "EntryState", "MessageState", "create", "migrate", "version_of"]

VERSION: Final = 1


class MessageState(IntEnum):
    OPEN = 0
    """A position has it unsettled."""
    WAITING = 1
    """Nobody had subscribed when it was stored, and no group has come since."""
    KEPT = 2
    """Everyone has settled it; its channel's retention keeps it."""


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
    kept INTEGER NOT NULL DEFAULT 0,        -- messages that no position has: waiting or kept by retention
    kept_bytes INTEGER NOT NULL DEFAULT 0,
    rejected INTEGER NOT NULL DEFAULT 0     -- settlements that came after their lease was lost
) STRICT;

CREATE TABLE nc_party (            -- a group, or without a name one broadcast of its owner
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT UNIQUE,
    owner INTEGER,
    ended INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE nc_pattern (
    party INTEGER NOT NULL,
    pattern TEXT NOT NULL,
    PRIMARY KEY (party, pattern)
) STRICT, WITHOUT ROWID;

CREATE TABLE nc_position (         -- where one party stands on one channel
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    party INTEGER NOT NULL,
    channel INTEGER NOT NULL,
    entries INTEGER NOT NULL DEFAULT 0,
    UNIQUE (channel, party)
) STRICT;

CREATE TABLE nc_message (
    seq INTEGER PRIMARY KEY,
    channel INTEGER NOT NULL,
    id TEXT NOT NULL,
    priority INTEGER NOT NULL,
    timestamp INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    headers TEXT,               -- a JSON object
    key TEXT,
    correlation_id TEXT,
    reply_to TEXT,
    expires INTEGER,
    delay INTEGER NOT NULL,
    not_before INTEGER,
    dedup_key TEXT,
    replay INTEGER NOT NULL,
    stored_mono INTEGER NOT NULL,
    stored_wall INTEGER NOT NULL,
    checksum INTEGER NOT NULL,  -- CRC-32 of all of the above and the body
    state INTEGER NOT NULL,
    evictable INTEGER NOT NULL, -- its channel drops old ones when it is full
    body BLOB NOT NULL
) STRICT;
CREATE INDEX nc_message_channel ON nc_message (channel, seq);
CREATE INDEX nc_message_kept ON nc_message (channel, seq) WHERE state > 0;
CREATE INDEX nc_message_evictable ON nc_message (channel, priority DESC, seq) WHERE evictable = 1;

CREATE TABLE nc_entry (            -- one message in one position, until the position has settled it
    seq INTEGER NOT NULL,
    position INTEGER NOT NULL,
    state INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    rank INTEGER NOT NULL,      -- its order among equals
    key TEXT,
    due INTEGER NOT NULL,
    not_before INTEGER,
    failed INTEGER NOT NULL DEFAULT 0,
    suspect INTEGER NOT NULL DEFAULT 0,
    charged INTEGER NOT NULL DEFAULT 0,     -- the attempt under way is counted already
    owner INTEGER,
    lease INTEGER,
    since INTEGER,
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

CREATE TABLE nc_seen (             -- the window of deduplication, and where to find a message by its id
    channel INTEGER NOT NULL,
    kind INTEGER NOT NULL,      -- 0: the id, 1: an idempotency key, 2: an id to be found only
    key TEXT NOT NULL,
    replay INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (channel, kind, key, replay)
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

_MIGRATIONS: Final[Sequence[str]] = ()
"""The n-th one makes version n + 2 of version n + 1."""


def create(connection: sqlite3.Connection, boot: str, mono: int, wall: int) -> None:
    """In a transaction that the caller began."""
    for statement in _statements(_TABLES):
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
    return None if row is None else int(row[0])


def _statements(script: str) -> list[str]:
    """``executescript`` would commit first."""
    return [statement for statement in script.split(";\n") if statement.strip()]
