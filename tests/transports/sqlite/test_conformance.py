"""The public suite on a real file, in real time, with real processes to kill."""

from __future__ import annotations

import sqlite3

import pytest

from neuralcore.testing.conformance import Harness, UrlHarness
from neuralcore.testing.conformance.suite import TransportConformance


class SqliteHarness(UrlHarness):
    grace = 0.2
    lease = 1.0


@pytest.mark.slow
class TestSqlite(TransportConformance):
    setup = "sqlite"

    def against(self) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    @pytest.fixture(autouse=True)
    def file(self, tmp_path_factory):
        self.path = tmp_path_factory.mktemp("store") / "bus.db"

    def make_harness(self) -> Harness:
        return SqliteHarness(f"sqlite://{self.path}?lease=1")
