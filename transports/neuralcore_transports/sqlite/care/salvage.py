"""What can still be read of a damaged file, table by table and row by row, into a fresh one.

A table is read from its beginning up to the first page that cannot be, then from its end back to the last such page,
and what is between is looked for by halving.
"""

from __future__ import annotations

# ruff: noqa: S608 - names are constants or quoted
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from difflib import SequenceMatcher
from typing import Any, Final, NamedTuple

from neuralcore_transports.sqlite.care.structure import Object, expected

__all__ = ["Moved", "mend_schema", "salvage"]

_PROBES: Final = 100_000
"""How often a table may fail to answer."""
_NEAR: Final = 4_096
"""Where nobody knows how far a table goes: so many numbers are tried."""
_KIN: Final = 0.9


class Moved(NamedTuple):
    table: str
    rows: int
    lost: int | None
    """None when nobody can tell."""
    aside: int
    """Messages that were put into the quarantine, because they are no rows of their table any more."""


class _Table(NamedTuple):
    name: str
    key: str
    """What it is ordered by."""
    lead: str
    """The first part of that."""
    by_number: bool
    unique: bool
    """``lead`` alone is the key."""
    columns: str
    width: int


def salvage(source: sqlite3.Connection, target: sqlite3.Connection) -> list[Moved]:
    """``target`` has this store's tables, empty; those of applications are made here."""
    target.execute("BEGIN")
    others, later = _made_by_applications(source)
    for sql in others.values():
        with suppress(sqlite3.Error):
            target.execute(sql)
    ours = [each.name for each in expected() if each.type == "table"]
    moved = [_move(source, target, name) for name in [*ours, *others]]
    for sql in later:
        with suppress(sqlite3.Error):
            target.execute(sql)
    _raise_sequences(source, target)
    target.execute("COMMIT")
    return moved


def _made_by_applications(source: sqlite3.Connection) -> tuple[dict[str, str], list[str]]:
    """Tables; and what stands upon them."""
    tables: dict[str, str] = {}
    later: list[str] = []
    with suppress(sqlite3.DatabaseError):
        for type, name, sql in source.execute("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL"):
            if str(name).startswith(("nc_", "sqlite_")):
                continue
            if type == "table":
                tables[name] = sql
            else:
                later.append(sql)
    return tables, later


def _move(source: sqlite3.Connection, target: sqlite3.Connection, name: str) -> Moved:
    table = _shape(target, name)
    if table is None:
        return Moved(name, 0, None, 0)
    insert = f"INSERT INTO {_quoted(name)} ({table.columns}) VALUES ({', '.join('?' * table.width)})"
    rows = lost = aside = 0
    for row in _read(source, table):
        try:
            target.execute(insert, row)
            rows += 1
        except (sqlite3.Error, UnicodeEncodeError, OverflowError) as error:
            if "UNIQUE" in str(error) and (not table.unique or _is_there(target, table, row)):
                continue  # it was read twice
            if name == "nc_message":
                aside += _set_aside(target, row, str(error))
            else:
                lost += 1
    counted = _count(source, name)
    missing = None if counted is None else max(lost, counted - rows - aside, _missing(source, target, name))
    return Moved(name, rows, missing, aside)


def _is_there(target: sqlite3.Connection, table: _Table, row: Sequence[Any]) -> bool:
    same = " AND ".join(f"{column} IS ?" for column in table.columns.split(", "))
    return target.execute(f"SELECT 1 FROM {_quoted(table.name)} WHERE {same}", row).fetchone() is not None


def _missing(source: sqlite3.Connection, target: sqlite3.Connection, name: str) -> int:
    """Messages that an index has, and nothing else."""
    if name != "nc_message":
        return 0
    missing = 0
    with suppress(sqlite3.DatabaseError):
        for (seq,) in source.execute("SELECT seq FROM nc_message INDEXED BY nc_message_order"):
            missing += not target.execute(
                "SELECT 1 FROM nc_message WHERE seq = ? UNION ALL SELECT 1 FROM nc_quarantine WHERE seq = ?", (seq, seq)
            ).fetchall()
    return missing


def _set_aside(target: sqlite3.Connection, row: Sequence[Any], why: str) -> int:
    seq = row[0] if isinstance(row[0], int) else -1
    target.execute(
        "INSERT INTO nc_quarantine (seq, channel, found, reason, content) VALUES (?, NULL, ?, ?, ?)",
        (seq, time.time_ns(), f"it is no row of its table: {why}", repr(tuple(row)).encode(errors="surrogateescape")),
    )
    return 1


def _shape(target: sqlite3.Connection, name: str) -> _Table | None:
    columns = target.execute(f"PRAGMA table_info({_quoted(name)})").fetchall()
    if not columns:
        return None
    listed = ", ".join(_quoted(column[1]) for column in columns)
    key = [column for column in sorted(columns, key=lambda column: column[5]) if column[5]]
    try:
        target.execute(f"SELECT rowid FROM {_quoted(name)} LIMIT 0")
    except sqlite3.OperationalError:
        lead = _quoted(key[0][1])
        order = ", ".join(_quoted(column[1]) for column in key)
        return _Table(name, order, lead, key[0][2] == "INTEGER", len(key) == 1, listed, len(columns))
    return _Table(name, "rowid", "rowid", True, True, listed, len(columns))


def _read(source: sqlite3.Connection, table: _Table) -> Iterator[Sequence[Any]]:
    """Every row that can be read; some of a table whose key has several parts twice."""
    begin = f"SELECT {table.lead}, {table.columns} FROM {_quoted(table.name)} NOT INDEXED"
    up, down = f" ORDER BY {table.key}", f" ORDER BY {table.key.replace(',', ' DESC,')} DESC"
    first = last = None
    try:
        for row in source.execute(begin + up):
            last = row[0]
            yield row[1:]
        return
    except sqlite3.DatabaseError:
        pass
    with suppress(sqlite3.DatabaseError):
        for row in source.execute(begin + down):
            if table.unique and row[0] == last:
                return
            first = row[0]
            yield row[1:]
    if table.by_number:
        low, high = _gap(source, table, last, first)
        yield from _halve(source, table, begin, low, high)


def _gap(source: sqlite3.Connection, table: _Table, last: Any, first: Any) -> tuple[int, int]:
    """Between what was read from both ends."""
    step = 1 if table.unique else 0
    low = last + step if isinstance(last, int) else None
    high = first - step if isinstance(first, int) else None
    if low is None:
        low = 0 if high is None else max(0, high - _NEAR)
    return low, low + _NEAR if high is None else high


def _halve(source: sqlite3.Connection, table: _Table, begin: str, low: int, high: int) -> Iterator[Sequence[Any]]:
    query = f"{begin} WHERE {table.lead} BETWEEN ? AND ? ORDER BY {table.key}"
    pending, probes = [(low, high)], 0
    while pending and probes < _PROBES:
        low, high = pending.pop()
        if low > high:
            continue
        start = low
        try:
            for row in source.execute(query, (low, high)):
                yield row[1:]
                start = row[0] + 1 if table.unique else row[0]
        except sqlite3.DatabaseError:
            probes += 1
            if start < high:
                middle = (start + high) // 2
                pending += [(middle + 1, high), (start, middle)]


def _count(source: sqlite3.Connection, name: str) -> int | None:
    """By whatever index can still be read."""
    indexes = [f"INDEXED BY {_quoted(each.name)}" for each in expected() if each.table == name and each.type == "index"]
    for how in ("", "NOT INDEXED", *(each for each in indexes if "_order" in each)):
        with suppress(sqlite3.DatabaseError):
            return int(source.execute(f"SELECT count(*) FROM {_quoted(name)} {how}").fetchone()[0])
    return None


def _raise_sequences(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Numbers that were given out are not given out again, as far as anybody knows."""
    known: dict[str, int] = {}
    with suppress(sqlite3.DatabaseError):
        known = dict(source.execute("SELECT name, seq FROM sqlite_sequence"))
    for table in ("nc_channel", "nc_subscriber", "nc_position", "nc_owner"):
        (used,) = target.execute(f"SELECT ifnull(max(id), 0) FROM {table}").fetchone()
        number = known.get(table)
        wanted = max(used, number) if isinstance(number, int) and number < 1 << 60 else used + 1_000
        target.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
        target.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (table, wanted))


def mend_schema(connection: sqlite3.Connection) -> bool:
    """Put right what the table of contents says of this store's tables; whether it has to be read anew.

    What it says is known. A damaged entry is told by its likeness to what it should be.
    """
    try:
        connection.execute("PRAGMA writable_schema = ON")
        rows = connection.execute("SELECT rowid, type, name, tbl_name, sql FROM sqlite_schema").fetchall()
    except sqlite3.DatabaseError:
        return False
    there = {tuple(row[1:]) for row in rows}
    wanted = [each for each in expected() if each not in there]
    free = [row for row in rows if row[4] is not None and Object(*row[1:]) not in set(expected())]
    mended = False
    for each in wanted:
        text = "\n".join(each)
        likeness = [(SequenceMatcher(None, "\n".join(map(str, row[1:])), text).ratio(), row[0]) for row in free]
        best, rowid = max(likeness, default=(0.0, 0))
        if best > _KIN:
            with suppress(sqlite3.DatabaseError):
                connection.execute(
                    "UPDATE sqlite_schema SET type = ?, name = ?, tbl_name = ?, sql = ? WHERE rowid = ?", (*each, rowid)
                )
                mended = True
    return mended


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
