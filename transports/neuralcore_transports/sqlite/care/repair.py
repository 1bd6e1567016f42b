"""Putting a file right: a copy first, then its structure, then its rows, then the rules between them.

Messages may be delivered twice afterwards. None is left that nobody can get, and none goes without being told.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from neuralcore.messaging.names import matches
from neuralcore_transports.sqlite.care.alone import alone, must_be_known
from neuralcore_transports.sqlite.care.check import broken, configs, damaged, looked_through
from neuralcore_transports.sqlite.care.copies import copy_file, copy_pages, new_file
from neuralcore_transports.sqlite.care.findings import Finding
from neuralcore_transports.sqlite.care.header import mend_header
from neuralcore_transports.sqlite.care.rules import NEW_POSITIONS, RULES, UNCOUNT
from neuralcore_transports.sqlite.care.salvage import Moved, mend_schema, salvage
from neuralcore_transports.sqlite.care.structure import expected, look
from neuralcore_transports.sqlite.errors import NewerStore, StoreCorrupt, StoreError, StoreReadOnly
from neuralcore_transports.sqlite.store import schema
from neuralcore_transports.sqlite.store.transaction import text_of

__all__ = ["Repaired", "repair"]

_TURNS: Final = 3
"""One rule put right may show what another one has to say."""
_HOPELESS: Final = (
    "is damaged in its table of contents, and this cannot put it right: restore a backup, or try SQLite's own"
    " .recover; as it was found, it is kept in {}"
)


@dataclass(slots=True)
class Repaired:
    path: str
    copy: str
    """Of the file as it was found."""
    done: list[Finding] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)
    """Tables of a file whose structure was damaged."""
    lost: list[str] = field(default_factory=list)
    left: Sequence[Finding] = ()
    """What is still wrong."""

    @property
    def ok(self) -> bool:
        return not self.left

    def as_dict(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "copy": self.copy,
            "ok": self.ok,
            "done": [finding.as_dict() for finding in self.done],
            "moved": [moved._asdict() for moved in self.moved],
            "lost": self.lost,
            "left": [finding.as_dict() for finding in self.left],
        }


def repair(path: Path) -> Repaired:
    """Raises TransportError: a living process uses the file, it is no store, the disk is full."""
    report = Repaired(str(path), "")
    _open_up(path, report)
    with alone(path, damaged=True) as connection:
        _mend_structure(connection, path, report)
        connection.execute("PRAGMA writable_schema = OFF")
        connection.execute("PRAGMA synchronous = FULL")
        _mend_rows(connection, report)
        report.left = [*look(connection).findings, *looked_through(connection)]
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return report


def _open_up(path: Path, report: Repaired) -> None:
    """Make the copy, and have SQLite understand the file."""
    try:
        with alone(path, damaged=True) as connection:
            must_be_known(connection, path)
            report.copy = str(copy_pages(connection, path))
            if mend_schema(connection):
                report.done.append(Finding("sqlite_schema", "", "what it says of tables is damaged", "it is put right"))
    except NewerStore:
        raise
    except (StoreError, StoreReadOnly) as error:
        report.copy = report.copy or str(copy_file(path))
        if not mend_header(path):
            if isinstance(error, StoreCorrupt):
                raise StoreError(str(path), _HOPELESS.format(report.copy)) from error
            Path(report.copy).unlink()
            raise
        report.done.append(Finding("the file", "", "its header is damaged", "it is put right"))
        with alone(path, damaged=True) as connection:
            must_be_known(connection, path)
            mend_schema(connection)


# Structure


def _mend_structure(connection: sqlite3.Connection, path: Path, report: Repaired) -> None:
    structure = look(connection)
    if not structure.findings:
        return
    report.done += structure.findings
    if structure.indexes_only and _reindex(connection) and not look(connection).findings:
        return
    _move_to_a_fresh_file(connection, path, report)


def _reindex(connection: sqlite3.Connection) -> bool:
    wanted = {each.name: each.sql for each in expected() if each.type == "index"}
    try:
        there = dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"))
        for name, sql in wanted.items():
            if there.get(name) != sql:
                connection.execute(f"DROP INDEX IF EXISTS {name}")
                connection.execute(sql)
        connection.execute("REINDEX")
    except sqlite3.DatabaseError:
        return False
    return True


def _move_to_a_fresh_file(connection: sqlite3.Connection, path: Path, report: Repaired) -> None:
    fresh = new_file(path.with_name(f"{path.name}.repairing"), replace=True)
    try:
        with closing(sqlite3.connect(fresh, isolation_level=None)) as target:
            target.text_factory = text_of
            target.execute(f"PRAGMA page_size = {_page_size(connection)}")
            target.execute("PRAGMA journal_mode = OFF")
            target.execute("PRAGMA synchronous = OFF")
            for statement in schema.tables():
                target.execute(statement)
            report.moved = salvage(connection, target)
            target.backup(connection)
    finally:
        fresh.unlink()
    report.lost += [_words(moved) for moved in report.moved if moved.lost is None or moved.lost or moved.aside]


def _page_size(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA page_size").fetchone()[0])


def _words(moved: Moved) -> str:
    count = "an unknown number of" if moved.lost is None else f"{moved.lost:,}"
    aside = f", {moved.aside:,} are in the quarantine as they were found" if moved.aside else ""
    return f"{moved.table}: {count} rows could not be read{aside}; {moved.rows:,} could"


# Rows


def _mend_rows(connection: sqlite3.Connection, report: Repaired) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        _write_store(connection, report)
        _write_configs(connection, report)
        _quarantine(connection, report)
        if any(moved.table == "nc_position" and moved.lost != 0 for moved in report.moved):
            _subscribe_again(connection, report)
        for _ in range(_TURNS):
            if not _apply_rules(connection, report):
                break
        connection.execute("UPDATE nc_store SET registry = registry + 1")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.rollback()


def _write_store(connection: sqlite3.Connection, report: Repaired) -> None:
    if connection.execute("SELECT 1 FROM nc_store").fetchone():
        return
    # Its time goes on from the last one that anything has; the next bus takes it over as after a reboot.
    mono, wall = connection.execute("SELECT ifnull(max(mono), 0), ifnull(max(wall), 0) FROM nc_message").fetchone()
    connection.execute("INSERT INTO nc_store VALUES (1, ?, 1, 1, '', 0, ?, ?)", (schema.VERSION, mono, wall))
    report.done.append(Finding("nc_store", "", "its only row is missing", "it is written anew"))


def _write_configs(connection: sqlite3.Connection, report: Repaired) -> None:
    for finding in list(configs(connection)):
        connection.execute("UPDATE nc_channel SET config = json_object('name', name) WHERE name = ?", (finding.row,))
        report.done.append(finding)
        report.lost.append(f"the configuration of channel {finding.row}")


def _quarantine(connection: sqlite3.Connection, report: Repaired) -> None:
    now = time.time_ns()
    for seq, why in list(damaged(connection)):
        row = connection.execute(
            "SELECT m.*, n.name FROM nc_message m LEFT JOIN nc_channel n ON n.id = m.channel WHERE seq = ?", (seq,)
        ).fetchone()
        connection.execute(
            "INSERT INTO nc_quarantine (seq, channel, found, reason, content) VALUES (?, ?, ?, ?, ?)",
            (seq, row[-1], now, why, repr(tuple(row[:-1])).encode(errors="surrogateescape")),
        )
        for statement in (*UNCOUNT, "DELETE FROM nc_entry WHERE seq = ?"):
            connection.execute(statement, (seq,))
        connection.execute("DELETE FROM nc_message WHERE seq = ?", (seq,))
        report.done.append(Finding("nc_message", str(seq), why, "it is moved to the quarantine"))
        report.lost.append(f"message {seq} of channel {row[-1]}, which is in the quarantine as it was found")


def _subscribe_again(connection: sqlite3.Connection, report: Repaired) -> None:
    """Positions were lost: every group gets one wherever its patterns lead."""
    channels = connection.execute("SELECT id, name FROM nc_channel").fetchall()
    patterns = connection.execute(
        "SELECT subscriber, pattern FROM nc_pattern t JOIN nc_subscriber g ON g.id = t.subscriber"
        " WHERE g.name IS NOT NULL"
    ).fetchall()
    connection.execute(NEW_POSITIONS[0])
    for subscriber, channel in dict.fromkeys(
        (subscriber, id) for subscriber, pattern in patterns for id, name in channels if matches(pattern, name)
    ):
        made = connection.execute(
            "INSERT OR IGNORE INTO nc_position (subscriber, channel, start) VALUES (?, ?, ifnull((SELECT min(seq)"
            " FROM nc_message WHERE channel = ? AND state IN (0, 3)), (SELECT next FROM nc_store)))",
            (subscriber, channel, channel),
        )
        if made.rowcount:
            report.done.append(
                Finding(
                    "nc_position", str(made.lastrowid), "it may be lost", "it begins at the oldest message that is open"
                )
            )
    _execute(connection, NEW_POSITIONS[1:])


def _apply_rules(connection: sqlite3.Connection, report: Repaired) -> bool:
    """Whether there was anything to do."""
    before = len(report.done)
    for rule in RULES:
        found = list(broken(connection, rule))
        if found:
            _execute(connection, rule.fix)
            report.done += found
            if "lost" in rule.repair and rule.table == "nc_entry":
                report.lost += [f"{finding.row}" for finding in found]
    return len(report.done) > before


def _execute(connection: sqlite3.Connection, statements: Iterable[str]) -> None:
    for statement in statements:
        connection.execute(statement)
