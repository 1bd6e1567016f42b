"""Row 6: SIGSTOP past the lease. Others take over, the late ack changes nothing, and who was stopped goes on."""

from __future__ import annotations

import contextlib
import sqlite3
import time

import pytest

from tests.faults.plan import tell, times
from tests.faults.processes import Worker
from tests.faults.sqlite.stage import SqliteStage
from tests.faults.stage import reply

LEASE = 1.0


@pytest.mark.parametrize("rounds", [times(2, 25)])
def test_a_stopped_consumer_is_replaced_and_its_late_ack_is_harmless(stage: SqliteStage, rounds: int) -> None:
    producer = stage.producer(wait=True)
    stopped, other = stage.consumer(work=0.05), stage.consumer(work=0.01)
    held = 0
    for turn in range(rounds):
        begun = len(stopped.lines)
        held += pause(stage, other)  # for a moment, or it may take them all
        producer.say(f"publish {turn * 40} 40")
        stopped.until(lambda lines: len(lines) > begun + 2)  # noqa: B023
        stage.journal.fault("SIGSTOP consumer")
        held += pause(stage, stopped)
        other.resume()
        stage.until_settled(timeout=LEASE * 8)
        assert stage.outstanding() == 0, stage.story().report()
        stopped.resume()
        reply(stopped, "status")
    producer.say(f"publish {rounds * 40} 40")
    producer.expect(f"produced {rounds * 40 + 40}")
    stage.until_settled()
    late = sum(reply(worker, "status")["lease lost"] for worker in (stopped, other))
    reply(stopped, "stop")
    story = stage.story()
    note = f"late acks refused: {refused(stage)}, seen: {late}; stopped inside a transaction and let out of it: {held}"
    tell(6, f"SIGSTOP past a lease of {LEASE:g} s", story, note)
    story.check()
    assert stage.left() == 0
    assert max(story.groups["g"].attempts.values(), key=max) == [1] or story.redelivered
    assert refused(stage) + late > 0, "nobody was stopped inside a handler"
    assert story.recovery(99) < LEASE * 4
    assert stage.damage() == ""


def pause(stage: SqliteStage, worker: Worker) -> int:
    """Outside its transactions: who is stopped inside one keeps the lock. How often it had to be let out of one."""
    held = 0
    while True:
        worker.pause()
        if writable(stage):
            return held
        held += 1
        assert held < 100
        worker.resume()
        time.sleep(0.005)


def writable(stage: SqliteStage) -> bool:
    with contextlib.closing(sqlite3.connect(stage.database, timeout=0.5, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        connection.execute("ROLLBACK")
        return True


def test_who_is_stopped_inside_a_transaction_stops_the_others_with_a_clear_error(stage: SqliteStage) -> None:
    """As SQLite's lock has it; they go on when it goes on."""
    stage.query = "lease=1&busy=0.5"
    stage.consumer()
    producer = stage.producer(wait=True)
    producer.expect("ready")
    with contextlib.closing(sqlite3.connect(stage.database, timeout=5, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        stage.journal.fault("lock held for longer than busy")
        producer.say("publish 0 3")
        producer.expect("produced 3")
        connection.execute("ROLLBACK")
    assert reply(producer)["errors"] == ["StoreLocked"]
    producer.say("publish 10 5")
    producer.expect("produced 15")
    stage.until_settled(timeout=10)
    story = stage.story()
    tell(6, "stopped inside a transaction", story)
    story.check()
    assert len(story.acked) == 5
    assert len(story.refused) == 3


def refused(stage: SqliteStage) -> int:
    with contextlib.closing(sqlite3.connect(stage.database)) as connection:
        return int(connection.execute("SELECT sum(rejected) FROM nc_channel").fetchone()[0])
