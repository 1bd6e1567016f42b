"""What SQLite itself says of a file, and whether it has the tables and indexes that a store has."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Final, NamedTuple

from neuralcore_transports.sqlite.care.findings import Finding
from neuralcore_transports.sqlite.store import schema

__all__ = ["FILE_REPAIR", "Object", "Structure", "expected", "look"]

_MOST: Final = 200
_INDEX: Final = re.compile(
    r"row \S+ missing from index (\S+)|wrong # of entries in index (\S+)"
    r"|rowid not at end-of-record for row \S+ of index (\S+)"
)
_INDEX_REPAIR: Final = "the index is made anew"
FILE_REPAIR: Final = "what can be read is moved into a fresh file"


class Object(NamedTuple):
    """A table or an index."""

    type: str
    name: str
    table: str
    sql: str


class Structure(NamedTuple):
    findings: list[Finding]
    indexes_only: bool
    """Nothing is wrong but indexes, which tell nothing that the tables do not."""


def look(connection: sqlite3.Connection, *, quick: bool = False) -> Structure:
    """``quick`` leaves out whether indexes and tables agree."""
    findings = [*_missing(connection)]
    indexes_only = all(finding.repair == _INDEX_REPAIR for finding in findings)
    for line in _complaints(connection, quick):
        found = _INDEX.search(line)
        indexes_only &= found is not None
        name = next(filter(None, found.groups())) if found else ""
        findings.append(Finding(name or "the file", "", line, _INDEX_REPAIR if found else FILE_REPAIR))
    return Structure(findings, indexes_only)


def _complaints(connection: sqlite3.Connection, quick: bool) -> Iterator[str]:
    pragma = "quick_check" if quick else "integrity_check"
    try:
        for (text,) in connection.execute(f"PRAGMA {pragma}({_MOST})"):
            yield from (line for line in text.splitlines() if line not in ("ok", "*** in database main ***"))
    except sqlite3.DatabaseError as error:
        yield str(error)


def _missing(connection: sqlite3.Connection) -> Iterator[Finding]:
    there: dict[str, str] = {}
    try:
        rows = connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
        there = dict(rows)
    except sqlite3.DatabaseError:
        return  # the complaints say so
    for each in expected():
        if each.name in there and there[each.name] == each.sql:
            continue
        what = "it is not what it should be" if each.name in there else "it is missing"
        yield Finding(each.name, "", what, _INDEX_REPAIR if each.type == "index" else FILE_REPAIR)


def expected() -> list[Object]:
    """What a store of this version has."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in schema.tables():
            connection.execute(statement)
        return [
            Object(*row)
            for row in connection.execute(
                "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name LIKE 'nc\\_%' ESCAPE '\\'"
                " AND sql IS NOT NULL"
            )
        ]
