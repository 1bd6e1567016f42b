"""Files with flipped bits: what is damaged is found, what can be saved is saved, and what cannot is told."""

from __future__ import annotations

# ruff: noqa: ASYNC240 - these files are small
import asyncio
import contextlib
import json
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from neuralcore import MessageBus
from neuralcore.messaging.errors import TransportError
from neuralcore_transports.sqlite.care import check, compact, export, repair
from neuralcore_transports.sqlite.errors import DiskFull, NewerStore, NotAStore, StoreError, StoreInUse
from tests.faults.disks import SmallDisk, flip
from tests.faults.processes import Worker
from tests.faults.sqlite_format import database_regions
from tests.transports.sqlite.stores import CHANNELS, ask, damage, drained, make

SEEDS = range(3)
REGIONS = ("header", "page header", "cell pointers", "table leaf cell", "interior page", "overflow page")
needs_mount = pytest.mark.skipif(bool(SmallDisk.why_not()), reason=f"cannot mount: {SmallDisk.why_not()}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bus.db"


def ids_in(path: Path, *, quarantine: bool = False) -> set[str]:
    return {each["id"] for each in export(path, quarantine=quarantine) if "id" in each}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("region", REGIONS)
async def test_a_flipped_bit(path: Path, region: str, seed: int) -> None:
    owed = make(path, size=9000)
    assert region in database_regions(path)
    flip(path, region, seed)
    try:
        found = not check(path).ok
    except TransportError:
        found = True
    repaired = repair(path)
    assert repaired.ok, [str(each) for each in repaired.left]
    assert check(path).ok
    if not found:
        assert not repaired.lost
    kept = ids_in(path)
    # A flip in a page of messages takes those of that page, a flip in a page of others none.
    assert len(owed["audit"] - kept) <= 60, repaired
    assert (owed["audit"] - kept == set()) or repaired.lost, repaired
    assert set(await drained(path, "audit", kept)) == kept, repaired


@pytest.mark.parametrize("seed", range(8))
async def test_a_flipped_bit_in_an_index_loses_nothing(path: Path, seed: int) -> None:
    owed = make(path)
    flip(path, "index leaf cell", seed)
    repaired = repair(path)
    assert repaired.ok
    assert set(await drained(path, "audit", ids_in(path))) == owed["audit"] or repaired.lost


async def test_a_page_of_zeros_among_the_messages(path: Path) -> None:
    owed = make(path, size=9000)
    span = database_regions(path)["overflow page"][20]
    with path.open("r+b") as file:
        file.seek(span.start)
        file.write(bytes(span.end - span.start))
    assert not check(path).ok
    repaired = repair(path)
    assert repaired.ok
    lost = owed["audit"] - ids_in(path)
    assert len(lost) == 1
    assert repaired.lost
    assert set(await drained(path, "audit", owed["audit"] - lost)) == owed["audit"] - lost


async def test_a_truncated_file_gives_what_is_left(path: Path) -> None:
    owed = make(path, size=9000)
    pages = path.stat().st_size // 4096
    with path.open("r+b") as file:
        file.truncate((pages - 10) * 4096)
    assert not check(path).ok
    repaired = repair(path)
    assert repaired.ok
    assert repaired.lost
    kept = ids_in(path)
    assert len(kept) >= len(owed["audit"]) - 60
    assert set(await drained(path, "audit", kept)) == kept


async def test_an_application_s_own_tables_are_saved_too(path: Path) -> None:
    make(path, size=9000)
    damage(
        path,
        "CREATE TABLE accounts (name TEXT PRIMARY KEY, balance INTEGER)",
        "CREATE INDEX rich ON accounts (balance)",
        "INSERT INTO accounts VALUES ('ada', 36), ('grace', 85)",
    )
    flip(path, "overflow page", 1)
    span = database_regions(path)["overflow page"][3]
    with path.open("r+b") as file:
        file.seek(span.start)
        file.write(b"\xff" * 4)
    assert repair(path).moved
    assert ask(path, "SELECT * FROM accounts INDEXED BY rich") == [("ada", 36), ("grace", 85)]


def test_the_first_copy_is_never_overwritten(path: Path) -> None:
    make(path)
    path.chmod(0o640)
    before = check(path).messages
    copies = [Path(repair(path).copy) for _ in range(3)]
    assert [copy.name for copy in copies] == [
        "bus.db.before-repair", "bus.db.before-repair.2", "bus.db.before-repair.3",
    ]  # fmt: skip
    assert [check(copy).messages for copy in copies] == [before] * 3
    assert {stat.S_IMODE(copy.stat().st_mode) for copy in copies} == {0o600}
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert not path.with_name("bus.db.repairing").exists()


USES = """
import asyncio, sys
from neuralcore import MessageBus
async def main():
    async with MessageBus("sqlite://" + sys.argv[1]) as bus:
        print("open", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.parametrize("work", [repair, compact])
def test_it_refuses_while_a_living_process_uses_the_file(path: Path, work) -> None:
    make(path)
    with Worker.python(USES, str(path)) as worker:
        worker.expect("open")
        with pytest.raises(StoreInUse, match="close every bus"):
            work(path)
        assert not path.with_name("bus.db.before-repair").exists()
        assert check(path).ok
        worker.kill()
    work(path)


@pytest.mark.parametrize("work", [repair, compact])
def test_it_refuses_while_another_program_has_the_file_open(path: Path, work) -> None:
    make(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT count(*) FROM nc_message").fetchone()
        with pytest.raises(StoreInUse):
            work(path)
    work(path)


async def test_a_bus_that_opens_while_it_is_repaired_waits(path: Path) -> None:
    owed = make(path, count=400)
    damage(path, "UPDATE nc_channel SET open = 1")
    repairing = asyncio.create_task(asyncio.to_thread(repair, path))
    await asyncio.sleep(0.02)
    got = await drained(path, "audit", owed["audit"])
    with contextlib.suppress(StoreInUse):  # the bus was first
        assert (await repairing).ok
    assert set(got) == owed["audit"]


@pytest.mark.parametrize("work", [check, repair, compact, lambda path: list(export(path))])
def test_what_is_no_store_is_left_alone(path: Path, work) -> None:
    with pytest.raises(TransportError, match="there is no file"):
        work(path)
    with pytest.raises(TransportError, match="is a directory"):
        work(path.parent)
    path.write_bytes(b"no database at all" * 1000)
    with pytest.raises(NotAStore):
        work(path)
    assert path.read_bytes() == b"no database at all" * 1000
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (x)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="has no store in it"):
        work(path)
    assert path.read_bytes() == before
    path.unlink()
    make(path)
    damage(path, "UPDATE nc_store SET version = 7")
    with pytest.raises(NewerStore, match=r"pip install -U neuralcore-transports"):
        work(path)


def test_compacting_gives_room_back(path: Path) -> None:
    make(path, count=300, size=9000)
    damage(path, "DELETE FROM nc_message WHERE seq > 100")
    before = path.stat().st_size
    found = compact(path)
    assert found.before == before
    assert found.gained == before - path.stat().st_size > before // 2


@needs_mount
@pytest.mark.parametrize("work", [repair, compact])
def test_without_room_on_the_disk_nothing_changes(tmp_path: Path, work) -> None:
    with SmallDisk(tmp_path / "small", size=8 << 20) as disk:
        path = disk.path / "bus.db"
        make(path, count=300, size=9000)
        damage(path, "UPDATE nc_channel SET open = 1")
        before = [str(each) for each in check(path).findings]
        disk.fill(leave=100_000)
        with pytest.raises(DiskFull, match="no room left"):
            work(path)
        disk.free()
        assert [str(each) for each in check(path).findings] == before
        assert not path.with_name("bus.db.before-repair").exists()
        assert repair(path).ok


def test_export_says_everything(path: Path) -> None:
    owed = make(path)
    lines = list(export(path))
    assert {line["id"] for line in lines} == owed["audit"]
    assert all(json.loads(json.dumps(line)) == line for line in lines)
    assert {line["id"] for line in lines if "mail" in line["unsettled"]} == owed["mail"]
    assert {line["id"] for line in lines if "audit" in line["unsettled"]} == owed["audit"]
    assert {line["channel"] for line in export(path, pattern="*.paid")} == {CHANNELS[1]}
    damage(path, "UPDATE nc_message SET body = x'ff00ff' WHERE seq = 10")
    assert [line["damaged"] for line in export(path) if "damaged" in line] == ["its checksum is wrong"]
    repair(path)
    (line,) = export(path, quarantine=True)
    assert (line["number"], line["reason"]) == (10, "its checksum is wrong")
    assert "ff" in line["content"]


async def test_a_damaged_message_is_set_aside_while_the_bus_runs(path: Path) -> None:
    owed = make(path)
    damage(path, "UPDATE nc_message SET body = x'22ff22' WHERE seq = (SELECT max(seq) FROM nc_message)")
    got: list[str] = []
    async with MessageBus(f"sqlite://{path}") as bus:
        await bus.subscribe("orders.*", lambda message: got.append(message.id), group="audit").ready()
        for _ in range(100):
            if len(got) >= len(owed["audit"]) - 1:
                break
            await asyncio.sleep(0.05)
        counted = bus.metrics().transport
    assert len(owed["audit"] - set(got)) == 1
    assert counted["quarantined"] == 1
    assert counted["data_lost"] == 1
    report = check(path)
    assert (report.findings, report.quarantined) == ([], 1)


async def test_a_delayed_message_that_is_damaged_keeps_no_group_from_beginning(path: Path) -> None:
    async with MessageBus(f"sqlite://{path}") as bus:
        await bus.subscribe("orders.*", print, group="first").ready()
        await bus.subscribe("orders.*", print, group="other").unsubscribe()
    async with MessageBus(f"sqlite://{path}") as bus:
        bad = await bus.publish("orders.new", "bad", delay=0.2)
        good = await bus.publish("orders.new", "good", delay=0.2)
    damage(path, f"UPDATE nc_message SET attributes = replace(attributes, ':', ';') WHERE attributes LIKE '%{bad}%'")
    async with MessageBus(f"sqlite://{path}") as bus:
        got: asyncio.Queue = asyncio.Queue()
        await bus.subscribe("orders.*", got.put, group="late", start="beginning").ready()
        assert (await asyncio.wait_for(got.get(), 10)).id == good
        for _ in range(100):
            if bus.metrics().transport.get("quarantined"):
                break
            await asyncio.sleep(0.05)
        assert bus.metrics().transport["quarantined"] == 1
