"""Rows 2, 3 and 6 for handlers that pass their message on by a transaction: each message's effect is there once.

What is compared is what the brokers have: a handler that dies cannot tell whether its transaction has happened.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress

import pytest

from tests.faults.acts import go_on
from tests.faults.kafka.judging import KEPT
from tests.faults.kafka.stage import LEASE, KafkaStage
from tests.faults.plan import figures, tell, times
from tests.faults.processes import Worker
from tests.faults.stage import reply
from tests.servers.ports import LateError, until

ENDLESS = 1000
"""Attempts."""
OPEN = LEASE + 20.0
"""Seconds after which a broker has ended a transaction that nobody goes on with: it looks every 10 s."""

pytestmark = pytest.mark.timeout(3600)


def consumers(stage: KafkaStage, count: int) -> list[Worker]:
    return stage.consumers(count, concurrency=8, into="done", max_attempts=ENDLESS, keep=KEPT)


def wait_for_all(stage: KafkaStage) -> None:
    """Until everything is settled, or for so long nothing more was."""
    left = stage.left()
    while left:
        most = left - 1
        try:
            until(lambda: stage.left() <= most, timeout=30, what=f"one of {left} to be settled", pause=0.5)  # noqa: B023
        except LateError:
            stage.show()
            raise
        left = stage.left()


def judge(stage: KafkaStage, row: int, fault: str, count: int, producers: list[Worker]) -> None:
    for producer in producers:
        reply(producer, "stop", timeout=40)
    wait_for_all(stage)
    acked, stored = set(stage.story().acked), stage.stored()
    with suppress(LateError):  # behind what a dead process has left open nobody reads
        until(lambda: len(stage.stored("done")) >= len(stored), timeout=OPEN, what="all to be there", pause=0.5)
    done = stage.stored("done")
    lost = acked - set(done)
    twice = Counter({id: copies - stored[id] for id, copies in done.items() if copies > stored[id]})
    found = figures(fault, count, acked=len(acked), settled=len(done), lost=len(lost), duplicated=twice.total())
    tell(row, f"{fault}, transactions", found)
    assert not lost
    assert not twice
    assert set(done) == set(stored), "what is settled has its effect"
    assert len(done) > 20 * count


def test_consumers_that_are_killed(stage: KafkaStage) -> None:
    producer = stage.producer(at_once=4, pause=0.01, keys=40, keep=KEPT)
    workers = consumers(stage, 2)
    kills = times(3, 60)
    for _ in range(kills):
        go_on([producer])
        stage.strike(workers.pop(0), stage.moments.next(0.0, 1.0), "kill -9 consumer")
        workers += consumers(stage, 1)
    judge(stage, 2, "kill -9 consumer", kills, [producer])


def test_a_broker_that_is_killed(mortal: KafkaStage) -> None:
    producer = mortal.producer(at_once=4, pause=0.01, keys=40, keep=KEPT)
    consumers(mortal, 2)
    (broker,) = mortal.kafka.brokers
    kills = times(1, 20)
    for _ in range(kills):
        go_on([producer])
        time.sleep(mortal.moments.next(0.0, 1.0))
        broker.kill()
        time.sleep(mortal.moments.next(0.0, 2.0))
        broker.start()
        go_on([producer])
    judge(mortal, 3, "kill -9 broker", kills, [producer])


def test_consumers_that_are_stopped_past_their_lease(stage: KafkaStage) -> None:
    """One that goes on in the middle of a transaction finds that its group has gone on without it."""
    producer = stage.producer(at_once=4, pause=0.01, keys=40, keep=KEPT)
    workers = consumers(stage, 2)
    stops = times(2, 30)
    for turn in range(stops):
        go_on([producer])
        stopped = workers[turn % 2]
        time.sleep(stage.moments.next(0.0, 1.0))
        stopped.pause()
        time.sleep(LEASE * 2)
        stopped.resume()
    judge(stage, 6, "SIGSTOP consumer", stops, [producer])
