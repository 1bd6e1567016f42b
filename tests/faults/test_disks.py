"""Full, read-only, flipped and truncated, by plain SQLite."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.disks import SmallDisk, flip, read_only, truncations
from tests.faults.sqlite_format import DATABASE_REGIONS, WAL_REGIONS, database_regions, frames

ROWS = 300
needs_mount = pytest.mark.skipif(bool(SmallDisk.why_not()), reason=SmallDisk.why_not() or "-")


def connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    return connection


def rows(path: Path) -> list[tuple[int, str, bytes]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("select number, name, body from rows order by number").fetchall()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with every kind of page; its WAL is empty."""
    path = tmp_path_factory.mktemp("whole") / "bus.db"
    with contextlib.closing(connect(path)) as database:
        database.execute("create table gone (filler blob)")
        database.execute("create table rows (number integer primary key, name text, body blob)")
        database.execute("create index names on rows (name)")
        database.execute("begin")
        database.executemany("insert into gone values (?)", [(bytes(1000),)] * 200)
        values = [(n, f"name {n:>200}", bytes([n % 256]) * (n * 53 % 9000)) for n in range(ROWS)]
        database.executemany("insert into rows values (?, ?, ?)", values)
        database.execute("drop table gone")
        database.execute("commit")
    return path


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole, tmp_path / "bus.db"))


@pytest.fixture
def logged(tmp_path: Path):
    """A database with ten transactions of several pages in its WAL, of numbered rows, ten each; still open."""
    path = tmp_path / "log.db"
    with contextlib.closing(connect(path)) as database:
        database.execute("pragma wal_autocheckpoint=0")
        database.execute("create table rows (number integer primary key, name text, body blob)")
        database.execute("pragma wal_checkpoint(truncate)")
        for start in range(0, 100, 10):
            database.execute("begin")
            database.executemany(
                "insert into rows values (?, 'x', ?)", [(n, bytes(900)) for n in range(start, start + 10)]
            )
            database.execute("commit")
        yield path


def without_shm(path: Path, folder: Path) -> Path:
    folder.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", folder / f"{path.name}{suffix}")
    return folder / path.name


def test_pages_are_found_as_sqlite_itself_counts_them(whole: Path) -> None:
    found = database_regions(whole)
    with contextlib.closing(sqlite3.connect(whole)) as database:
        types = Counter(row[0] for row in database.execute("select pagetype from dbstat"))
        cells = dict(database.execute("select name, sum(ncell) from dbstat where pagetype = 'leaf' group by name"))
        free = database.execute("pragma freelist_count").fetchone()[0]
    assert set(found) == set(DATABASE_REGIONS)
    assert len(found["interior page"]) == types["internal"]
    assert len(found["page header"]) == len(found["cell pointers"]) == types["leaf"]
    assert len(found["overflow page"]) == types["overflow"]
    assert len(found["table leaf cell"]) == cells["rows"] + cells["sqlite_schema"]
    assert len(found["index leaf cell"]) == cells["names"]
    assert len(found["freelist trunk"]) + len(found["freelist leaf"]) == free


@pytest.mark.parametrize("region", DATABASE_REGIONS)
def test_a_bit_is_flipped_where_it_was_asked_for(copy: Path, region: str) -> None:
    before = copy.read_bytes()
    flipped = flip(copy, region, seed=1)
    after = copy.read_bytes()
    different = [n for n in range(len(before)) if before[n] != after[n]]
    assert different == [flipped.offset]
    assert (before[flipped.offset] ^ after[flipped.offset]).bit_count() == 1
    flipped.apply()
    assert copy.read_bytes() == before
    assert flip(copy, region, seed=1) == flipped


def test_flips_hurt_where_it_matters_and_sqlite_does_not_always_notice(whole: Path, copy: Path) -> None:
    """By region: found by integrity_check, wrong rows without a word, harmless."""
    good, table = rows(whole), {}
    for region in DATABASE_REGIONS:
        table[region] = Counter(outcome(copy, region, seed, good) for seed in range(12))
    print("\n".join(f"{region}: {dict(counts)}" for region, counts in table.items()))
    assert table["table leaf cell"]["wrong in silence"]
    assert table["cell pointers"]["noticed"] > 6
    assert table["interior page"]["noticed"]
    assert table["freelist leaf"] == {"harmless": 12}


def outcome(path: Path, region: str, seed: int, good: list[tuple[int, str, bytes]]) -> str:
    flipped = flip(path, region, seed)
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as database:
            database.text_factory = bytes
            if database.execute("pragma integrity_check").fetchone()[0] != b"ok":
                return "noticed"
            read = database.execute("select number, name, body from rows not indexed order by number").fetchall()
            return "harmless" if read == [(n, name.encode(), body) for n, name, body in good] else "wrong in silence"
    except sqlite3.DatabaseError:
        return "noticed"
    finally:
        flipped.apply()


@pytest.mark.parametrize("region", WAL_REGIONS)
def test_a_flip_in_the_log_leaves_whole_transactions_only(logged: Path, tmp_path: Path, region: str) -> None:
    counts = []
    for seed in range(8):
        copied = without_shm(logged, tmp_path / str(seed))
        flip(copied.with_name(copied.name + "-wal"), region, seed)
        counts.append(len(rows(copied)))
    assert all(count < 100 and count % 10 == 0 for count in counts), counts


def test_every_truncation_leaves_the_transactions_it_says(logged: Path, tmp_path: Path) -> None:
    wal = logged.with_name(logged.name + "-wal")
    cuts = truncations(wal)
    assert len({cut.label for cut in cuts}) == len(cuts)
    for kind in ("empty", "inside the header", "the header's end", "inside a frame header", "between header and body",
                 "inside a body", "a frame's end", "a commit frame's end", "one byte before"):  # fmt: skip
        assert any(cut.label.startswith(kind) for cut in cuts), kind
    for number, cut in enumerate(cuts):
        copied = without_shm(logged, tmp_path / str(number))
        cut.apply(copied.with_name(copied.name + "-wal"))
        assert [row[0] for row in rows(copied)] == list(range(10 * cut.commits)), cut


def test_frames_of_an_earlier_turn_of_the_log_are_not_counted(logged: Path) -> None:
    wal = logged.with_name(logged.name + "-wal")
    before = len(frames(wal))
    with contextlib.closing(sqlite3.connect(logged, isolation_level=None)) as database:
        database.execute("pragma wal_checkpoint(restart)")
        database.execute("insert into rows values (1000, 'x', null)")
    assert 0 < len(frames(wal)) < before


@needs_mount
def test_a_small_disk_fills_and_is_freed(tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "small") as disk, contextlib.closing(connect(disk.path / "bus.db")) as database:
        database.execute("create table rows (body blob)")
        disk.fill()
        assert disk.free_bytes < 4096
        with pytest.raises(sqlite3.OperationalError, match=r"full|disk I/O"):
            database.executemany("insert into rows values (?)", [(bytes(100_000),)] * 3)
        disk.free()
        database.execute("insert into rows values (?)", (bytes(100_000),))
        disk.fill(leave=40960)
        assert 36864 <= disk.free_bytes <= 40960
    assert not list((tmp_path / "small").iterdir())


@needs_mount
def test_a_small_disk_is_unmounted_even_when_it_is_busy(tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "small") as disk:
        held = (disk.path / "file").open("w")
    with held:
        assert not list((tmp_path / "small").iterdir())


@needs_mount
@pytest.mark.parametrize("what", ["file", "directory"])
def test_nobody_writes_what_is_read_only(copy: Path, what: str) -> None:
    def insert() -> None:
        with contextlib.closing(sqlite3.connect(copy)) as database, database:
            database.execute("insert into rows values (1000, 'x', null)")

    with read_only(copy if what == "file" else copy.parent), pytest.raises(sqlite3.OperationalError):
        insert()
    insert()
    assert len(rows(copy)) == ROWS + 1
