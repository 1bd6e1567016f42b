"""Row 7: a disk of 2 MB that is full: a clear error, never a false ack, and it goes on once there is room."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.faults.disks import SmallDisk
from tests.faults.plan import SEED, needs_mount, tell, times
from tests.faults.sqlite.stage import SqliteStage
from tests.faults.stage import reply

pytestmark = needs_mount


@pytest.mark.parametrize("number", range(times(1, 15)))
def test_a_full_disk_is_an_error_and_not_a_loss(tmp_path: Path, number: int) -> None:
    """Somebody else fills it while messages are published and settled, to the last byte or nearly."""
    rounds = 2
    seed = SEED * 1000 + number
    small = SmallDisk(tmp_path / "small")
    with small as disk, SqliteStage(tmp_path, database=disk.path / "bus.db", seed=seed) as stage:
        producer = stage.producer(wait=True, size=2000, at_once=4)
        producer.expect("ready")
        consumer = stage.consumer(work=0.001)
        for turn in range(rounds):
            producer.say(f"publish {turn * 1000} 200")
            time.sleep(stage.moments.next(0, 0.1))
            stage.journal.fault("disk full")
            disk.fill(leave=max(0, int(stage.moments.next(-50_000, 50_000))))
            producer.expect(f"produced {turn * 1000 + 200}", timeout=90)
            for again in range(400, 450, 5):  # the others were quicker, or the log gave back what it had taken
                producer.say(f"publish {turn * 1000 + again} 5")
                producer.expect(f"produced {turn * 1000 + again + 5}", timeout=30)
                if reply(producer, "status")["errors"]:
                    break
                disk.fill()
            disk.free()
            producer.say(f"publish {turn * 1000 + 500} 5")
            producer.expect(f"produced {turn * 1000 + 505}", timeout=30)
            stage.until_settled(timeout=30)
        errors = reply(producer, "status")["errors"]
        judge(stage, rounds, errors)
        reply(consumer, "stop")
        assert stage.left() == 0


def judge(stage: SqliteStage, rounds: int, errors: list[str]) -> None:
    story = stage.story()
    after = [id for id in story.acked if int(id.split("-")[1]) % 1000 >= 500]
    tell(7, "a full disk of 2 MB", story, f"errors: {errors}")
    story.check()
    assert errors == ["DiskFull"]
    assert story.refused
    assert len(after) >= rounds * 3, "it does not go on when there is room"
    assert stage.damage() == ""


def test_what_has_filled_its_disk_can_be_drained_without_more_room(tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "small") as disk, SqliteStage(tmp_path, database=disk.path / "bus.db") as stage:
        producer = stage.producer(wait=True, size=2000, at_once=4)
        producer.expect("ready")
        producer.say("publish 0 1000")
        producer.expect("produced 1000", timeout=90)
        stage.journal.fault("disk filled by messages")
        consumer = stage.consumer(concurrency=4)
        stage.until_settled(timeout=60)
        producer.say("publish 1000 50")
        producer.expect("produced 1050", timeout=30)
        stage.until_settled(timeout=60)
        story = stage.story()
        tell(7, "a disk of 2 MB that messages have filled", story)
        story.check()
        assert story.refused
        assert sum(int(id.split("-")[1]) >= 1000 for id in story.acked) >= 25, "it does not go on"
        reply(consumer, "stop")


def test_it_opens_on_a_disk_that_filled_up_and_says_what_is_wrong(tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "small") as disk, SqliteStage(tmp_path, database=disk.path / "bus.db") as stage:
        disk.fill()
        with stage.producer() as producer:
            producer.wait()
            assert "DiskFull" in producer.errors
            assert "free some space" in producer.errors
        disk.free()
        stage.publish(0, 3)
        assert len(stage.story().acked) == 3


def test_what_is_consumed_makes_room_by_itself(tmp_path: Path) -> None:
    """Several times the disk goes through it, at a pace that leaves the keepers the lock: they slow nobody."""
    small = SmallDisk(tmp_path / "small", size=4 << 20)
    with small as disk, SqliteStage(tmp_path, database=disk.path / "bus.db") as stage:
        producer = stage.producer(wait=True, size=4000, at_once=2, pause=0.002)
        stage.consumer(concurrency=4)
        for turn in range(times(4, 40)):
            stage.journal.fault("disk's worth of messages")
            producer.say(f"publish {turn * 250} 250")
            producer.expect(f"produced {turn * 250 + 250}", timeout=60)
            stage.until_settled(timeout=20)
        story = stage.story()
        tell(7, "a disk of 4 MB, and more than that goes through it", story)
        story.check()
        assert len(story.refused) <= len(story.attempted) // 20, "but where the keepers are late"
