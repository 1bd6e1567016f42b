"""A writer of numbered rows, to prove the tools by, and the judge of what became of the rows.

``python sqlite_writer.py DATABASE FIRST SYNCHRONOUS [JOURNAL]``: after each commit it appends the number to the file in
NC_WITNESS, if there is one, and prints it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.processes import Worker

__all__ = ["Found", "judge", "start"]

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Found:
    missing: set[int]
    rows: int
    damage: str
    """Empty when the database is intact."""


def judge(database: Path, acknowledged: Iterable[int]) -> Found:
    """What an application would find after the restart."""
    numbers: set[int] = set()
    damage = ""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        try:
            damage = connection.execute("pragma integrity_check").fetchone()[0]
            numbers = {row[0] for row in connection.execute("select number from rows")}
        except sqlite3.DatabaseError as error:
            if str(error) != "no such table: rows":  # the cut came before there was one
                damage = str(error)
    return Found(set(acknowledged) - numbers, len(numbers), "" if damage == "ok" else damage)


def start(
    database: Path, *, first: int = 0, synchronous: str = "full", journal: str = "wal", env: dict[str, str]
) -> Worker:
    env = {**env, "PYTHONPATH": str(ROOT)}
    return Worker(sys.executable, __file__, str(database), str(first), synchronous, journal, env=env)


def main(path: str, first: int, synchronous: str, journal: str) -> None:
    witness = os.open(os.environ["NC_WITNESS"], os.O_WRONLY | os.O_APPEND) if "NC_WITNESS" in os.environ else None
    database = sqlite3.connect(path, timeout=20, isolation_level=None)
    database.execute(f"pragma journal_mode={journal}")
    database.execute(f"pragma synchronous={synchronous}")
    database.execute("pragma wal_autocheckpoint=40")
    database.execute("create table if not exists rows (number integer primary key, filler blob)")
    print("ready", flush=True)
    for number in range(first, sys.maxsize):
        database.execute("insert into rows values (?, ?)", (number, os.urandom(100 + number * 37 % 3000)))
        if witness is not None:
            os.write(witness, b"%d\n" % number)
        print(number, flush=True)
        time.sleep(0.001)  # SQLite's lock is not fair: let others have it


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
