"""Row 26: several processes write one database: nothing is damaged, and no update is lost."""

from __future__ import annotations

import contextlib
import sqlite3
import time

from tests.faults.plan import long_only, tell, times
from tests.faults.sqlite.stage import SqliteStage
from tests.faults.stage import reply


def test_many_processes_on_one_file(stage: SqliteStage) -> None:
    """Producers and consumers of two groups, all of them checkpointing, and some of them killed."""
    stage.query = "lease=1&durability=normal"
    consumers = [stage.consumer(group=group, concurrency=2, log_due=60_000) for group in ("g", "h", "g")]
    producers = [stage.producer(keys=3, size=300, pause=0.004, log_due=60_000) for _ in range(times(2, 4))]
    for _ in range(times(1, 15)):
        stage.strike(consumers.pop(), stage.moments.next(0.3, 1.0), "kill -9 consumer")
        consumers.append(stage.consumer(group="g", concurrency=2, log_due=60_000))
    for producer in producers:
        reply(producer, "stop")
    stage.until_settled(groups=("g", "h"))
    for consumer in consumers:
        reply(consumer, "stop")
    story = stage.story("g", "h")
    tell(26, f"{len(producers) + 3} processes on one file", story, f"damage: {stage.damage() or 'none'}")
    story.check()
    assert stage.damage() == ""
    assert stage.left() == 0


@long_only
def test_a_row_that_goes_behind_its_back_is_missed(stage: SqliteStage) -> None:
    stage.publish(0, 50)
    with contextlib.closing(sqlite3.connect(stage.database)) as connection, connection:
        connection.execute("DELETE FROM nc_message WHERE seq = (SELECT max(seq) FROM nc_message)")
    stage.consumer()
    stage.until_settled(timeout=2)
    assert len(stage.story().lost["g"]) == 1
    assert "counts" in stage.damage()


def test_a_writer_that_dies_inside_its_transaction_is_undone(stage: SqliteStage) -> None:
    """Killed at random all the time, some are in the midst of writing: the others are not kept waiting."""
    stage.query = "lease=1&durability=normal&busy=5"
    stage.consumer(concurrency=4)
    steady = stage.producer(pause=0.01, at_once=1)
    slowest = 0.0
    for _ in range(times(3, 40)):
        victim = stage.producer(at_once=64, size=20_000)
        victim.until(lambda lines: len(lines) > 3)
        stage.strike(victim, stage.moments.next(0.0, 0.03), "kill -9 writer")
        slowest = max(slowest, seconds_for_one(steady))
    reply(steady, "stop")
    stage.until_settled()
    story = stage.story()
    tell(26, "killed in mid-transaction", story, f"slowest publish beside it: {slowest:.3f}s")
    story.check()
    assert stage.damage() == ""
    assert slowest < 5


def seconds_for_one(steady) -> float:
    count, began = len(steady.lines), time.monotonic()
    steady.until(lambda lines: len(lines) > count + 1)
    return time.monotonic() - began
