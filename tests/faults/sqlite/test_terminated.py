"""Row 30: SIGTERM under load. What runs is finished, the rest goes back untouched, and the process ends by itself."""

from __future__ import annotations

import pytest

from tests.faults.acts import check_terminated, has_begun, terminate
from tests.faults.plan import long_only, times
from tests.faults.processes import Worker
from tests.faults.sqlite.stage import SqliteStage
from tests.faults.stage import reply


@pytest.mark.parametrize("grace", [10.0, 0.01])
def test_terminated_consumers_drain_or_give_back(stage: SqliteStage, grace: float) -> None:
    """With no time to drain, handlers are cancelled and their messages delivered again."""
    work = 0.02 if grace >= 1 else 1.0  # in the second case somebody is inside a handler when the time is over
    reports = []
    producer = stage.producer(pause=0.01, keys=5)

    def start() -> Worker:
        return stage.start("run", concurrency=4, work=work, grace=grace)

    following = start()
    for _ in range(times(2, 40)):
        consumer, following = following, start()
        reports.append(terminate(stage, consumer, stage.moments.next(0.0, 0.1)))
    reports.append(terminate(stage, following, 0.0))
    reply(producer, "stop")
    stage.consumer(concurrency=8)
    stage.until_settled()
    check_terminated(stage, grace, reports)
    assert stage.damage() == ""


@long_only
def test_a_kill_instead_would_be_noticed(stage: SqliteStage) -> None:
    stage.publish(0, 50)
    consumer = stage.start("run", concurrency=4, work=0.05)
    has_begun(consumer, 4)
    consumer.kill()
    stage.consumer(concurrency=8)
    stage.until_settled()
    assert stage.story().redelivered > 0
