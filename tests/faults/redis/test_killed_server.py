"""Rows 3 and 18: the server is killed under load, with an append-only file that is synced before each answer."""

from __future__ import annotations

import time

import pytest

from tests.faults.acts import begun
from tests.faults.plan import tell, times
from tests.faults.redis.stage import RedisStage
from tests.faults.stage import reply


@pytest.mark.parametrize(
    ("row", "fault", "count", "down"),
    [(3, "kill -9 server", times(3, 60), 0.5), (18, "kill -9 and restart at once", times(5, 50), 0.0)],
)
def test_nothing_is_lost(stage: RedisStage, row: int, fault: str, count: int, down: float) -> None:
    """``down``: for up to so many seconds."""
    consumers = [stage.consumer(concurrency=4, work=0.005, keep=100_000) for _ in range(2)]
    producers = [stage.producer(at_once=4, keys=5, pause=0.002, keep=100_000) for _ in range(2)]
    for _ in range(count):
        seen = [len(producer.lines) for producer in producers]
        for producer, lines in zip(producers, seen, strict=True):
            producer.until(lambda now: begun(now, "acked") > 0 and len(now) > lines + 20)  # noqa: B023
        time.sleep(stage.moments.next(0.0, 0.3))
        stage.journal.fault(fault)
        stage.server.kill()
        time.sleep(stage.moments.next(0.0, down))
        stage.server.start()
    states = [reply(producer) for producer in producers]
    for producer in producers:
        reply(producer, "stop")
    stage.until_settled()
    states += [reply(consumer) for consumer in consumers]
    story, stored = stage.story(), stage.stored()
    repeats = sum(state["repeats"] for state in states)
    told = sum(state["counts"].get("data_lost", 0) for state in states)
    lost = sum(state["lease lost"] for state in states)
    note = f"published again by applications: {repeats}, leases lost: {lost}, losses told of: {told}"
    tell(row, fault, story, note)
    story.check()
    assert [id for id, entries in stored.items() if entries > 1] == []
    assert set(story.acked) <= set(stored)
    assert told == 0, "nothing was lost"
    assert stage.debris() == []
