"""Row 7: the append-only file is on a disk of 2 MB that is full: a clear error, never a false ack; then it goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from tests.faults.acts import begun
from tests.faults.disks import SmallDisk
from tests.faults.plan import SEED, needs_mount, tell, times
from tests.faults.redis.stage import RedisStage
from tests.faults.stage import reply
from tests.servers.missing import need
from tests.servers.ports import until
from tests.servers.redis import RedisServer

pytestmark = needs_mount

OPTIONS = {"auto-aof-rewrite-percentage": "0"}


@contextmanager
def small(
    folder: Path, appendfsync: Literal["always", "everysec"], seed: int
) -> Iterator[tuple[SmallDisk, RedisStage]]:
    need("redis-7.0")
    with (
        SmallDisk(folder / "small") as disk,
        RedisServer(disk.path / "redis", appendfsync=appendfsync, options=OPTIONS) as server,
        RedisStage(folder, server, seed=seed) as stage,
    ):
        yield disk, stage


@pytest.mark.parametrize("number", range(times(1, 15)))
def test_a_full_disk_is_an_error_and_not_a_loss(tmp_path: Path, number: int) -> None:
    """The server goes on, and refuses to write."""
    rounds = 2
    with small(tmp_path, "everysec", SEED * 1000 + number) as (disk, stage):
        stage.query = "lease=1&timeout=2&patience=3"
        producer = stage.producer(wait=True, size=2000, at_once=4, insist=False)
        producer.expect("ready")
        consumer = stage.consumer(work=0.001)
        for turn in range(rounds):
            producer.say(f"publish {turn * 1000} 200")
            time.sleep(stage.moments.next(0, 0.1))
            stage.journal.fault("disk full")
            disk.fill(leave=max(0, int(stage.moments.next(-50_000, 50_000))))
            producer.expect(f"produced {turn * 1000 + 200}", timeout=90)
            producer.say(f"publish {turn * 1000 + 400} 50")  # where the others were quicker than the disk was filled
            producer.expect(f"produced {turn * 1000 + 450}", timeout=90)
            disk.free()
            until(lambda: writes(stage.server), timeout=10, what="a server that writes")
            producer.say(f"publish {turn * 1000 + 500} 5")
            producer.expect(f"produced {turn * 1000 + 505}", timeout=30)
            stage.until_settled(timeout=30)
        errors = reply(producer, "status")["errors"]
        stage.server.restart()
        stage.until_settled(timeout=10)
        story = stage.story()
        after = [id for id in story.acked if int(id.split("-")[1]) % 1000 >= 500]
        tell(7, "a full disk of 2 MB, appendfsync everysec", story, f"errors: {errors}")
        story.check()
        assert errors == ["NotStored"]
        assert story.refused
        assert len(after) == rounds * 5, "it does not go on when there is room"
        assert stage.debris(timeout=20) == [], "settlements are tried again ever less often"
        reply(consumer, "stop")


def writes(server: RedisServer) -> bool:
    return bool(server.info("persistence")["aof_last_write_status"] == "ok")


@pytest.mark.parametrize("number", range(times(1, 15)))
def test_a_full_disk_ends_a_server_that_always_syncs(tmp_path: Path, number: int) -> None:
    """As Redis has it: it cannot take back what it has done, and rather dies than answer. Nothing was promised then."""
    with small(tmp_path, "always", SEED * 1000 + number) as (disk, stage):
        stage.query = "lease=1&timeout=2&patience=1"
        stage.consumer(work=0.001)
        producer = stage.producer(size=2000, at_once=4)  # not before: it may fill the disk by itself
        producer.until(lambda lines: begun(lines, "acked") > 20)
        stage.journal.fault("disk full")
        disk.fill(leave=max(0, int(stage.moments.next(-50_000, 50_000))))
        until(lambda: not stage.server.running, timeout=30, what="the end of the server")
        producer.until(lambda lines: begun(lines, "error") > 0, timeout=10)
        disk.free()
        stage.server.start()
        seen = begun(producer.lines, "acked")
        producer.until(lambda lines: begun(lines, "acked") > seen + 10)
        errors = reply(producer, "stop") and {line.split()[1] for line in producer.lines if line.startswith("error")}
        stage.until_settled(timeout=30)
        story = stage.story()
        tell(7, "a full disk of 2 MB, appendfsync always", story, f"errors: {sorted(errors)}")
        story.check()
        assert errors <= {"NotStored", "PublishUnknown"}
        assert stage.debris() == []
