"""Row 30: SIGTERM under load. What runs is finished, the rest goes back untouched, and the process ends by itself."""

from __future__ import annotations

import pytest

from tests.faults.acts import busiest, check_terminated, has_begun, terminate
from tests.faults.kafka.stage import LEASE, QUERY, KafkaStage
from tests.faults.plan import long_only, times
from tests.faults.processes import Worker
from tests.faults.stage import reply


@pytest.mark.parametrize("grace", [10.0, 0.01])
def test_terminated_consumers_drain_or_give_back(stage: KafkaStage, grace: float) -> None:
    """With no time to drain, handlers are cancelled and their messages delivered again."""
    stage.query = QUERY.replace(f"lease={LEASE:g}", "lease=6")  # what is not given back would be missed
    work = 0.02 if grace >= 1 else 1.0  # in the second case somebody is inside a handler when the time is over
    reports = []
    producer = stage.producer(pause=0.01, keys=40)

    def start() -> Worker:
        return stage.start("run", concurrency=4, work=work, grace=grace)

    working = [start(), start()]
    for _ in range(times(2, 60)):
        reports.append(terminate(stage, busiest(working), stage.moments.next(0.0, 0.1)))
        working.append(start())
    while working:
        reports.append(terminate(stage, busiest(working), 0.0))
    reply(producer, "stop")
    stage.consumer(concurrency=8)
    stage.until_settled()
    check_terminated(stage, grace, reports)
    assert stage.debris() == []


@long_only
def test_a_kill_instead_would_be_noticed(stage: KafkaStage) -> None:
    stage.publish(0, 50)
    consumer = stage.start("run", concurrency=4, work=0.05)
    has_begun(consumer, 4)
    consumer.kill()
    stage.consumer(concurrency=8)
    stage.until_settled()
    assert stage.story().redelivered > 0
