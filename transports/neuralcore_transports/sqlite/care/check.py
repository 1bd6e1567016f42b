"""Is everything there and as it was written? It reads one moment of a file that buses may be using."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from neuralcore_transports.sqlite.care.alone import reading
from neuralcore_transports.sqlite.care.findings import Finding
from neuralcore_transports.sqlite.care.rules import RULES, Rule
from neuralcore_transports.sqlite.care.structure import FILE_REPAIR, look
from neuralcore_transports.sqlite.errors import StoreCorrupt
from neuralcore_transports.sqlite.store.registry import decode_config
from neuralcore_transports.sqlite.store.rows import COLUMNS, Corrupt, envelope_of

__all__ = ["Report", "broken", "check", "configs", "damaged", "looked_through"]


@dataclass(frozen=True, slots=True)
class Report:
    path: str
    messages: int | None
    """None when they cannot be counted."""
    findings: Sequence[Finding]
    quarantined: int
    """Messages that were found damaged before, and set aside."""

    @property
    def ok(self) -> bool:
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "ok": self.ok,
            "messages": self.messages,
            "findings": [finding.as_dict() for finding in self.findings],
            "quarantined": self.quarantined,
        }


def check(path: Path, *, quick: bool = False) -> Report:
    """Raises TransportError for a file that is no store, and one that cannot be opened."""
    try:
        with reading(path) as connection:
            findings = [*look(connection, quick=quick).findings, *looked_through(connection)]
            quarantined = _count(connection, "nc_quarantine") or 0
            return Report(str(path), _count(connection, "nc_message"), findings, quarantined)
    except StoreCorrupt as error:
        return Report(str(path), None, [Finding("the file", "", error.detail, FILE_REPAIR)], 0)


def looked_through(connection: sqlite3.Connection) -> Iterator[Finding]:
    """The rows of every table, one by one and together."""
    unreadable = {}
    looks: list[Callable[[sqlite3.Connection], Iterator[Finding]]] = [_store, configs, _messages]
    looks += (partial(broken, rule=rule) for rule in RULES)
    for found in looks:
        try:
            yield from found(connection)
        except sqlite3.DatabaseError as error:
            unreadable[str(error)] = error
    for text in unreadable:
        yield Finding("the file", "", f"something in it cannot be read: {text}", FILE_REPAIR)


def broken(connection: sqlite3.Connection, rule: Rule) -> Iterator[Finding]:
    for row, what in connection.execute(rule.find):
        yield Finding(rule.table, str(row), what, rule.repair)


def _store(connection: sqlite3.Connection) -> Iterator[Finding]:
    if connection.execute("SELECT 1 FROM nc_store").fetchone() is None:
        yield Finding("nc_store", "", "its only row is missing", "it is written anew")


def configs(connection: sqlite3.Connection) -> Iterator[Finding]:
    for name, config in connection.execute("SELECT name, config FROM nc_channel ORDER BY id"):
        try:
            wrong = decode_config(config).name != name
        except (msgspec.MsgspecError, ValueError):
            wrong = True
        if wrong:
            yield Finding("nc_channel", str(name), "its configuration cannot be read", "it gets the default one")


def _messages(connection: sqlite3.Connection) -> Iterator[Finding]:
    for seq, why in damaged(connection):
        yield Finding("nc_message", str(seq), why, "it is moved to the quarantine")


def damaged(connection: sqlite3.Connection) -> Iterator[tuple[int, str]]:
    """Numbers, and what is wrong."""
    for row in connection.execute(f"SELECT {COLUMNS} FROM nc_message m ORDER BY seq"):  # noqa: S608 - constants
        try:
            envelope_of(row, "")
        except Corrupt as error:
            yield row[0], str(error)


def _count(connection: sqlite3.Connection, table: str) -> int | None:
    try:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608
    except sqlite3.DatabaseError:
        return None
