"""Row 30: SIGTERM under load. What runs is finished, the rest goes back untouched, and the process ends by itself."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.faults.processes import Worker
from tests.faults.sqlite.plan import long_only, tell, times
from tests.faults.sqlite.stage import Stage, reply


@pytest.mark.parametrize("grace", [10.0, 0.01])
def test_terminated_consumers_drain_or_give_back(stage: Stage, grace: float) -> None:
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
    judge(stage, grace, reports)


def judge(stage: Stage, grace: float, reports: list[dict[str, Any]]) -> None:
    story, released = stage.story(), sum(report["released"] for report in reports)
    tell(30, f"SIGTERM under load, {grace:g} s to drain", story, f"released: {released}")
    story.check()
    assert not story.duplicated
    assert not story.groups["g"].dead
    assert max(attempt for seen in story.groups["g"].attempts.values() for attempt in seen) == 1
    if grace >= 1:
        # What a fetch still brings when all handlers have ended goes back, unseen by any of them.
        assert all(report["drained"] or report["released"] for report in reports)
        assert not any(report["interrupted"] or report["abandoned"] for report in reports)
        assert story.redelivered == 0, "a handler was interrupted, or its ack was lost"
    else:
        assert released > 0
    assert stage.damage() == ""


def terminate(stage: Stage, worker: Worker, seconds: float) -> dict[str, Any]:
    worker.until(lambda lines: sum(line.startswith("begun") for line in lines) > 3)
    time.sleep(seconds)
    stage.journal.fault("SIGTERM consumer")
    worker.terminate()
    assert worker.wait(timeout=20) == 0, worker.errors
    (report,) = [line.removeprefix("closed ") for line in worker.lines if line.startswith("closed ")]
    return dict(json.loads(report))


@long_only
def test_a_kill_instead_would_be_noticed(stage: Stage) -> None:
    stage.publish(0, 50)
    consumer = stage.start("run", concurrency=4, work=0.05)
    consumer.until(lambda lines: sum(line.startswith("begun") for line in lines) > 3)
    consumer.kill()
    stage.consumer(concurrency=8)
    stage.until_settled()
    assert stage.story().redelivered > 0
