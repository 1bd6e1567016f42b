"""One database."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tests.faults import plan
from tests.faults.processes import Worker
from tests.faults.stage import Stage

__all__ = ["SqliteStage"]


class SqliteStage(Stage):
    transport: ClassVar[str] = "tests.faults.sqlite.transport"

    def __init__(
        self,
        folder: Path,
        *,
        query: str = "lease=1",
        env: Mapping[str, str] | None = None,
        database: Path | None = None,
        seed: int = plan.SEED,
    ) -> None:
        super().__init__(folder, query=query, env=env, seed=seed)
        self.database = database or folder / "bus.db"

    @property
    def url(self) -> str:
        return f"sqlite://{self.database}?{self.query}"

    def start(self, role: str, *, log_due: int = 0, heart: bool = True, **how: Any) -> Worker:
        """``log_due``: bytes of log at which it is checkpointed. Without a ``heart`` no lease is extended."""
        return super().start(role, tuning={"log_due": log_due, "heart": heart}, **how)

    def damage(self) -> str:
        """What SQLite finds, and counts that do not add up; empty when all is well."""
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            found = [row[0] for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
            found += [
                f"channel {name} counts {counted} open messages, and has {there}"
                for name, counted, there in connection.execute(_OPEN)
                if counted != there
            ]
        return "; ".join(found)

    def left(self) -> int:
        """Messages that the store still holds for somebody."""
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return int(connection.execute("SELECT sum(open) FROM nc_channel").fetchone()[0])


_OPEN = (
    "SELECT c.name, c.open, count(m.seq) FROM nc_channel c"
    " LEFT JOIN nc_message m ON m.channel = c.id AND m.state != 2 GROUP BY c.id"
)
