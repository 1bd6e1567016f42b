"""Rows 20 and 22: handlers that take longer than the lease, also ones that block the loop, keep their messages."""

from __future__ import annotations

import time

import pytest

from tests.faults.plan import tell, times
from tests.faults.redis.stage import RedisStage
from tests.faults.stage import reply

LEASE = 0.5
LEASES = 5


@pytest.mark.parametrize(("row", "how"), [(20, "work"), (22, "block")])
def test_long_handlers_keep_their_leases(stage: RedisStage, row: int, how: str) -> None:
    stage.query = f"lease={LEASE}"
    doing = "awaits" if how == "work" else "blocks the loop"
    count = times(2, 12)
    for _ in range(count):
        stage.journal.fault(f"handler {doing}")
    stage.publish(0, count)
    workers = [stage.consumer(**{how: LEASE * LEASES}) for _ in range(2)]
    stage.until_settled()
    story = stage.story()
    lost = sum(reply(worker, "status")["lease lost"] for worker in workers)
    warned = [sum("Process.handle blocks its event loop" in line for line in w.errors.splitlines()) for w in workers]
    tell(row, f"a handler that {doing} for {LEASES} leases", story, f"leases lost: {lost}, warnings: {sum(warned)}")
    story.check()
    assert sum(warned) == (len(story.acked) if how == "block" else 0), "one for each incident, and it names the handler"
    assert story.redelivered == lost == 0


def test_without_the_keeper_leases_are_lost(stage: RedisStage) -> None:
    """The negative control."""
    stage.query = f"lease={LEASE}"
    stage.publish(0, 2)
    broken = stage.consumer(block=LEASE * 8, heart=False)
    broken.until(lambda lines: len(lines) > 1)
    stage.consumer()
    stage.until_settled()
    assert stage.story().redelivered > 0


def test_max_hold_revokes_without_a_stale_ack(stage: RedisStage) -> None:
    stage.query = f"lease={LEASE}&max_hold=1"
    stage.journal.fault("handler past max_hold")
    stage.publish(0, 1)
    slow = stage.consumer(work=3.0)
    slow.until(lambda lines: len(lines) > 1)
    stage.consumer()
    slow.until(lambda lines: any(line.startswith("done") for line in lines))
    deadline = time.monotonic() + 15
    while not stage.story().redelivered and time.monotonic() < deadline:  # perhaps to the slow one itself
        time.sleep(0.05)
    stage.until_settled()
    story = stage.story()
    tell(20, "a handler that works for three times max_hold", story)
    story.check()
    assert reply(slow, "status")["lease lost"] >= 1
    assert story.redelivered >= 1
