"""Row 13: the clients' wall clocks jump by two hours while everything runs; retries, delays and leases do not care."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.acts import early, retry_gaps, times_from
from tests.faults.clocks import Clock
from tests.faults.plan import needs_compiler, some, tell, times
from tests.faults.redis.stage import RedisStage
from tests.faults.stage import reply
from tests.servers.redis import RedisServer

pytestmark = needs_compiler

HOURS = 7200
RETRY = 0.6
DELAY = 0.8


@pytest.mark.parametrize("direction", some(1, [-1, 1]))
def test_nothing_is_early_late_or_lost(tmp_path: Path, start_redis: Callable[..., RedisServer], direction: int) -> None:
    """The server's clock stays."""
    clock, server = Clock(tmp_path), start_redis()
    jumps, count = times(4, 40), times(120, 900)
    failing = {str(number): "fail once" for number in range(0, count, 10)}
    with RedisStage(tmp_path, server, env=clock.environment()) as stage:
        workers = [stage.consumer(retry=RETRY, concurrency=4, work=0.01) for _ in range(2)]
        producers = [
            stage.producer(count=count, at_once=1, pause=0.02, orders=failing),
            stage.producer(name="late", count=count // 4, at_once=1, pause=0.08, delay=DELAY),
        ]
        for jump in range(jumps):
            seen = len(producers[0].lines)
            producers[0].until(lambda lines: len(lines) >= min(seen + count // jumps - 3, count))  # noqa: B023
            stage.journal.fault(f"clock {'+' if direction * (-1) ** jump > 0 else '-'}2 h")
            clock.jump(direction * HOURS * (-1) ** jump)
        for producer, produced in zip(producers, (count, count // 4), strict=True):
            producer.expect(f"produced {produced}", timeout=60)
        stage.until_settled(timeout=20)
        judge(stage, direction, sum(reply(worker, "status")["lease lost"] for worker in workers))


def judge(stage: RedisStage, direction: int, lost: int) -> None:
    story, gaps, waits = stage.story(), retry_gaps(stage.journal_path), times_from(stage.journal_path, "late")
    note = (
        f"retries after {min(gaps):.2f} to {max(gaps):.2f}s (wanted {RETRY}), delayed by {min(waits):.2f} to"
        f" {max(waits):.2f}s (wanted {DELAY}), leases lost {lost}"
    )
    tell(13, f"clients' wall clocks jump, {'+' if direction > 0 else '-'}2 h first", story, note)
    story.check()
    assert early(gaps, RETRY) == early(waits, DELAY) == []
    assert max(gaps) < RETRY + 2
    assert max(waits) < DELAY + 2
    assert lost == 0
    assert story.redelivered == len(gaps), "something was delivered again that had not failed"
    assert not story.duplicated
    assert stage.debris() == []
