"""What can be wrong with a file, produced for real: each its own error, which says what to do; no false ack."""

from __future__ import annotations

# ruff: noqa: ASYNC240 - these files are small
import asyncio
import logging
import os
import sqlite3
import stat
import time
from contextlib import closing
from pathlib import Path

import pytest

from neuralcore import MessageBus
from neuralcore.messaging.errors import TransportError
from neuralcore_transports.sqlite.checkpoint import Checkpointer
from neuralcore_transports.sqlite.errors import (
    DiskFull,
    NewerStore,
    NotAStore,
    StoreCorrupt,
    StoreLocked,
    StoreReadOnly,
)
from neuralcore_transports.sqlite.opening import network_file_system
from neuralcore_transports.sqlite.options import SqliteOptions
from tests.faults.disks import SmallDisk, read_only
from tests.transports.sqlite.stores import damage, drained, make

needs_mount = pytest.mark.skipif(bool(SmallDisk.why_not()), reason=f"cannot mount: {SmallDisk.why_not()}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bus.db"


async def publish(path: Path, options: str = "", payload: object = 1) -> str | None:
    async with MessageBus(f"sqlite://{path}{options}") as bus:
        return await bus.publish("orders.new", payload)


async def test_new_files_are_their_owner_s_alone(path: Path) -> None:
    old = os.umask(0)
    try:
        async with MessageBus(f"sqlite://{path}") as bus:
            await bus.publish("orders.new", 1)
            files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(old)
    assert files == dict.fromkeys(("bus.db", "bus.db-wal", "bus.db-shm", "bus.db-owners"), 0o600)


async def test_a_directory_that_does_not_exist(path: Path) -> None:
    with pytest.raises(TransportError, match=r"directory .*/no of the store does not exist: create it first"):
        await publish(path.parent / "no" / "bus.db")


async def test_a_directory_as_path(path: Path) -> None:
    with pytest.raises(TransportError, match=r"is a directory; the URL of a store names a file"):
        await publish(path.parent)


async def test_a_file_as_directory(path: Path) -> None:
    path.write_text("")
    with pytest.raises(TransportError, match="does not exist"):
        await publish(path / "bus.db")


@needs_mount
@pytest.mark.parametrize("what", ["file", "directory"])
async def test_what_may_not_be_written(path: Path, what: str) -> None:
    make(path)
    with read_only(path if what == "file" else path.parent), pytest.raises(StoreReadOnly, match="may not be written"):
        await publish(path)
    assert await publish(path)


async def test_a_file_that_is_no_database(path: Path) -> None:
    path.write_bytes(b"something else" * 1000)
    with pytest.raises(NotAStore, match="is no SQLite database; choose another path"):
        await publish(path)
    assert path.read_bytes() == b"something else" * 1000


async def test_a_file_of_a_newer_version(path: Path) -> None:
    make(path)
    damage(path, "UPDATE nc_store SET version = 2")
    with pytest.raises(NewerStore, match=r"format 2, this one knows 1.*pip install -U neuralcore-transports") as caught:
        await publish(path)
    assert (caught.value.version, caught.value.known) == (2, 1)


async def test_a_lock_that_is_kept_for_too_long(path: Path) -> None:
    make(path)
    async with MessageBus(f"sqlite://{path}?busy=0.3") as bus:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreLocked, match=r"locked for 0\.3 s; find it with `fuser .*busy=SECONDS"):
                await bus.publish("orders.new", "refused")
            with pytest.raises(StoreLocked):
                await publish(path, "?busy=0.3")
        assert await bus.publish("orders.new", "taken")
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT count(*) FROM nc_message WHERE CAST(body AS TEXT) LIKE '%refused%'")
        assert rows.fetchone() == (0,)


@needs_mount
async def test_publishers_leave_room_for_settling_what_is_there(tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "small", size=4 << 20) as disk:
        path, acked = disk.path / "bus.db", []
        async with MessageBus(f"sqlite://{path}") as bus:
            with pytest.raises(DiskFull, match=r"the last 0\.5 MB are kept .* free some space"):  # noqa: PT012 - after some
                while True:
                    acked += [await bus.publish("orders.new", "x" * 500)]
            settled = await drained(path, "audit", acked)
            assert sorted(settled) == sorted(acked)
            acked.append(await bus.publish("orders.new", "x"))
        assert len(acked) > 100


@needs_mount
@pytest.mark.parametrize("late", [0.1, 0.4])
async def test_a_log_that_is_moved_late_leaves_the_room_for_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: float
) -> None:
    """Whoever writes waits for the keepers, which else could neither move the log nor make it shorter ever again."""
    look = Checkpointer.look

    def look_late(checkpointer: Checkpointer) -> bool:
        time.sleep(late)
        return look(checkpointer)

    with SmallDisk(tmp_path / "small", size=4 << 20) as disk:
        path, acked = disk.path / "bus.db", []
        async with MessageBus(f"sqlite://{path}") as bus:
            with pytest.raises(DiskFull):  # noqa: PT012 - after some
                while True:
                    acked += [await bus.publish("orders.new", "x" * 500)]
            monkeypatch.setattr(Checkpointer, "look", look_late)
            assert sorted(await drained(path, "audit", acked)) == sorted(acked)
            assert await bus.publish("orders.new", "x")
        assert len(acked) > 100


@needs_mount
async def test_publishers_leave_the_room_for_a_log_that_nobody_has_moved_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SmallDisk(tmp_path / "small") as disk:
        path, acked = disk.path / "bus.db", []
        async with MessageBus(f"sqlite://{path}") as bus:

            async def fill() -> None:
                with pytest.raises(DiskFull):  # noqa: PT012 - after some
                    while True:
                        acked.append(await bus.publish("orders.new", "x" * 2000))

            with monkeypatch.context() as patched:
                patched.setattr(Checkpointer, "look", lambda _: True)
                await asyncio.gather(*(fill() for _ in range(16)))
            assert sorted(await drained(path, "audit", acked)) == sorted(acked)
            assert await bus.publish("orders.new", "x")
        assert len(acked) > 10


@needs_mount
async def test_a_full_disk_refuses_and_nothing_is_acked_that_is_not_there(tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "small", size=4 << 20) as disk:
        path, acked = disk.path / "bus.db", []
        async with MessageBus(f"sqlite://{path}") as bus, bus.connection() as db:
            disk.fill(leave=1_500_000)
            with pytest.raises(DiskFull, match=r"stored nothing.* free some space"):  # noqa: PT012 - after some
                for _ in range(200):
                    async with bus.transaction(db) as tx:
                        id = await tx.publish("orders.new", "x" * 5000)
                    acked.append(id)
            assert acked
            disk.free()
            acked.append(await bus.publish("orders.new", "x"))
        got = await drained(path, "audit", acked)
        assert sorted(got) == sorted(acked)


@needs_mount
async def test_an_applications_rows_may_use_the_last_room_and_nothing_of_a_transaction_is_there_that_failed(
    tmp_path: Path,
) -> None:
    with SmallDisk(tmp_path / "small", size=4 << 20) as disk:
        path = disk.path / "bus.db"
        async with MessageBus(f"sqlite://{path}") as bus, bus.connection() as db:
            await db.execute("CREATE TABLE note (body BLOB)")
            acked = [await bus.publish("orders.new", "x") for _ in range(20)]
            disk.fill(leave=300_000)
            written = 0
            with pytest.raises((DiskFull, sqlite3.OperationalError), match=r"full|no room"):  # noqa: PT012 - after some
                for _ in range(200):
                    async with bus.transaction(db):
                        await db.execute("INSERT INTO note VALUES (zeroblob(5000))")
                    written += 1
            disk.free()
            acked.append(await bus.publish("orders.new", "x"))
            async with db.execute("SELECT count(*) FROM note") as rows:
                assert await rows.fetchone() == (written,)
        assert written
        assert sorted(await drained(path, "audit", acked)) == sorted(acked)


@needs_mount
async def test_a_disk_that_is_full_from_the_beginning(tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "small") as disk:
        disk.fill()
        with pytest.raises(DiskFull):
            await publish(disk.path / "bus.db")
        disk.free()
        assert await publish(disk.path / "bus.db")


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE nc_entry",
        "DROP INDEX nc_entry_leased",
        "DELETE FROM nc_store",
        "UPDATE nc_channel SET config = '{'",
        "UPDATE nc_channel SET config = CAST(x'ff' AS TEXT)",
    ],
)
async def test_a_damaged_store_says_what_to_do(path: Path, statement: str) -> None:
    make(path)
    damage(path, statement)
    with pytest.raises(StoreCorrupt, match=r"neuralcore store check .*neuralcore store repair"):
        await publish(path)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite://", "needs the path of a file"),
        ("sqlite:///", "needs the path of a file"),
        ("sqlite:///tmp/", "needs the path of a file"),
        ("sqlite:///:memory:", "native://"),
        ("sqlite://host/bus.db", "'host' would be a host"),
        ("sqlite:///bus.db?leese=3", r"no option 'leese'; it has durability, lease, max_hold"),
        ("sqlite:///bus.db?lease=soon", "number of seconds for 'lease'; got 'soon'"),
        ("sqlite:///bus.db?lease=", "number of seconds for 'lease'"),
        ("sqlite:///bus.db?lease=0.1", "lease of at least 0.5 s"),
        ("sqlite:///bus.db?busy=-1", "positive number of seconds for 'busy'"),
        ("sqlite:///bus.db?busy=nan", "positive number of seconds for 'busy'"),
        ("sqlite:///bus.db?busy=inf", "positive number of seconds for 'busy'"),
        ("sqlite:///bus.db?durability=some", "durabilities full, normal, off; got 'some'"),
        ("sqlite:///bus.db?lease=1&lease=2", "'lease' twice"),
        ("sqlite:///bus.db#x", "no fragment"),
        ("sqlite:///bus%00.db", "no path"),
    ],
)
def test_a_wrong_url(url: str, says: str) -> None:
    with pytest.raises(TransportError, match=says):
        SqliteOptions.from_url(url)


def test_a_right_url() -> None:
    found = SqliteOptions.from_url("sqlite:///./a%20b/bus.db?durability=off&lease=2.5&busy=1")
    assert (found.path, found.durability, found.lease, found.busy) == (Path("a b/bus.db"), "off", 2.5, 1.0)
    assert SqliteOptions.from_url("sqlite:///var/bus.db").path == Path("/var/bus.db")


MOUNTS = """\
22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:40 / /net rw,relatime shared:9 - nfs4 server:/export rw
31 30 0:41 / /net/local rw - ext4 /dev/sdb rw
32 22 0:42 / /my\\040share rw - cifs //server/share rw
33 22 0:43 / /net/local/again rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("/home/bus.db", None),
        ("/net/bus.db", "nfs4"),
        ("/network/bus.db", None),
        ("/net/local/bus.db", None),
        ("/my share/deep/bus.db", "cifs"),
    ],
)
def test_a_network_file_system_is_noticed(tmp_path: Path, file: str, kind: str | None) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS)
    assert network_file_system(Path(file), table) == kind


@pytest.mark.parametrize("text", ["", "nonsense\n", "1 2 3 4 / - \n"])
def test_a_mount_table_that_cannot_be_read_says_nothing(tmp_path: Path, text: str) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(text)
    assert network_file_system(Path("/x"), table) is None
    assert network_file_system(Path("/x"), tmp_path / "none") is None


async def test_a_network_file_system_is_warned_of(path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr("neuralcore_transports.sqlite.transport.network_file_system", lambda path: "nfs4")
    with caplog.at_level(logging.WARNING, "neuralcore.sqlite"):
        await publish(path)
    assert "network file system (nfs4)" in caplog.text
