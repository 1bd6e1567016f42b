"""A log that is damaged before its end: SQLite drops what is behind that in silence, and the transport tells."""

import asyncio
import os
import shutil
import sqlite3
from contextlib import closing

import pytest

from neuralcore import MessageBus
from neuralcore_transports.sqlite.log import LogFile, commits_behind, log_of
from neuralcore_transports.sqlite.opening import connect
from tests.faults.disks import flip
from tests.faults.sqlite_format import WAL_REGIONS
from tests.transports.sqlite.logs import used_of

COMMITS = 30


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """A store whose process died: a log of many commits."""
    folder = tmp_path_factory.mktemp("left")

    async def live() -> None:
        async with MessageBus(f"sqlite://{folder}/live.db") as bus:
            for number in range(COMMITS):
                await bus.publish("orders.new", number)
            for suffix in ("", "-wal"):
                shutil.copyfile(f"{folder}/live.db{suffix}", f"{folder}/bus.db{suffix}")

    asyncio.run(live())
    return folder / "bus.db"


@pytest.fixture
def path(left, tmp_path):
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{left}{suffix}", f"{tmp_path}/bus.db{suffix}")
    return tmp_path / "bus.db"


async def reopened(path):
    async with MessageBus(f"sqlite://{path}") as bus:
        with closing(connect(path)) as other:
            (stored,) = other.execute("SELECT count(*) FROM nc_message").fetchone()
        return stored, bus.metrics().transport.get("log_broken", 0)


async def test_a_whole_log_says_nothing(path, caplog):
    assert used_of(log_of(path)) > 0
    assert await reopened(path) == (COMMITS, 0)
    assert not caplog.records


@pytest.mark.parametrize("region", WAL_REGIONS)
async def test_a_flip_that_hides_commits_is_told(path, region, caplog):
    for seed in range(5):
        flip(log_of(path), region, seed)
    stored, told = await reopened(path)
    assert (stored < COMMITS - 1) == bool(told)
    assert any("breaks off" in record.message for record in caplog.records) == bool(told)
    assert (await reopened(path)) == (stored, 0), "once"


async def test_an_earlier_log_s_frames_are_no_damage(path):
    async with MessageBus(f"sqlite://{path}") as bus:
        await bus.publish("orders.new", 0)
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA wal_checkpoint(PASSIVE)")
        for _ in range(2):  # the log begins anew, in a file that keeps the frames of the earlier one
            await bus.publish("orders.new", 0)
        log = log_of(path)
        frames = used_of(log) // 4120
        assert 0 < frames < log.stat().st_size // 4120
        assert commits_behind(log, frames, 4096) == 0
        assert commits_behind(log, 0, 4096) >= 2


def test_it_is_measured_from_where_it_was_however_the_log_goes_on(tmp_path):
    with closing(connect(tmp_path / "bus.db")) as one, closing(connect(tmp_path / "bus.db")) as other:
        one.execute("PRAGMA journal_mode = WAL")
        one.execute("PRAGMA wal_autocheckpoint = 0")
        one.execute("CREATE TABLE t (x)")
        other.execute("SELECT * FROM t").close()
        file = LogFile(tmp_path / "bus.db-wal")
        try:
            for number in range(1, 80):
                one.execute("INSERT INTO t VALUES (zeroblob(?))", (number * 500,))
                if number % 17 == 0:  # the next commit begins it anew
                    busy, frames, _ = other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                    assert (busy, frames * 4120) == (0, file.used())
                    one.execute("INSERT INTO t VALUES (1)")
                assert file.used() == used_of(tmp_path / "bus.db-wal")
        finally:
            file.close()


def test_what_was_undone_is_found_at_the_end_of_a_log_and_what_was_committed_stays_when_it_is_cut_off(tmp_path):
    path, log = tmp_path / "bus.db", tmp_path / "bus.db-wal"
    with closing(connect(path)) as one, closing(connect(path)) as other:
        one.execute("PRAGMA journal_mode = WAL")
        one.execute("PRAGMA cache_size = 5")  # pages: a transaction writes to the log before it ends
        one.execute("CREATE TABLE t (x)")
        one.execute("INSERT INTO t VALUES (zeroblob(20000))")
        file = LogFile(log)
        try:
            before = file.used()
            assert file.committed() == log.stat().st_size == before + 32
            one.execute("BEGIN")
            one.executemany("INSERT INTO t VALUES (zeroblob(3000))", [()] * 100)
            one.execute("ROLLBACK")
            assert file.used() > before + 50 * 4096
            assert file.committed() == before + 32
            os.truncate(log, file.committed())
            assert file.used() == before
            one.execute("INSERT INTO t VALUES (1)")
            assert other.execute("SELECT count(*) FROM t").fetchone() == (2,)
            assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        finally:
            file.close()
