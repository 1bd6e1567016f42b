"""Row 13: the wall clock jumps by two hours while everything runs; retries, delays and leases do not care."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.acts import early, retry_gaps, times_from
from tests.faults.clocks import Clock
from tests.faults.history import Story
from tests.faults.plan import long_only, needs_compiler, some, tell, times
from tests.faults.sqlite.stage import SqliteStage
from tests.faults.stage import reply

pytestmark = needs_compiler

HOURS = 7200
RETRY = 0.6
DELAY = 0.8


@pytest.mark.parametrize("direction", some(1, [-1, 1]))
def test_nothing_is_early_late_or_lost(tmp_path: Path, direction: int) -> None:
    clock = Clock(tmp_path)
    jumps, count = times(4, 40), times(120, 900)
    failing = {str(number): "fail once" for number in range(0, count, 10)}
    with SqliteStage(tmp_path, query="lease=0.5", env=clock.environment()) as stage:
        workers = [stage.consumer(retry=RETRY, concurrency=4, work=0.01) for _ in range(2)]
        producers = [
            stage.producer(count=count, at_once=1, pause=0.02, orders=failing),
            stage.producer(name="late", count=count // 4, at_once=1, pause=0.08, delay=DELAY),
        ]
        for jump in range(jumps):
            stage.moments.next(0, 1)
            for producer in producers[:1]:
                seen = len(producer.lines)
                producer.until(lambda lines: len(lines) >= min(seen + count // jumps - 3, count))  # noqa: B023
            stage.journal.fault(f"clock {'+' if direction * (-1) ** jump > 0 else '-'}2 h")
            clock.jump(direction * HOURS * (-1) ** jump)
        for producer, produced in zip(producers, (count, count // 4), strict=True):
            producer.expect(f"produced {produced}", timeout=60)
        stage.until_settled(timeout=20)
        lost = sum(reply(worker, "status")["lease lost"] for worker in workers)
        judge(stage, direction, lost)


def judge(stage: SqliteStage, direction: int, lost: int) -> None:
    story, gaps, waits = stage.story(), retry_gaps(stage.journal_path), times_from(stage.journal_path, "late")
    note = (
        f"retries after {min(gaps):.2f} to {max(gaps):.2f}s (wanted {RETRY}), delayed by {min(waits):.2f} to"
        f" {max(waits):.2f}s (wanted {DELAY}), leases lost {lost}"
    )
    tell(13, f"wall clock jumps, {'+' if direction > 0 else '-'}2 h first", story, note)
    story.check()
    assert early(gaps, RETRY) == early(waits, DELAY) == []
    assert max(gaps) < RETRY + 2
    assert max(waits) < DELAY + 2
    assert lost == 0
    assert story.redelivered == len(gaps), "something was delivered again that had not failed"
    assert not story.duplicated


def test_the_jump_is_real_for_what_follows_the_wall_clock(tmp_path: Path) -> None:
    """``not_before`` and expiry do: the shim moves the clock that the store reads."""
    clock = Clock(tmp_path)
    with SqliteStage(tmp_path, query="lease=1", env=clock.environment()) as stage:
        stage.consumer()
        stage.publish(0, 1, name="dated", not_before=3600.0)
        assert stage.outstanding() == 1
        clock.jump(HOURS)
        stage.until_settled(timeout=5)
        story: Story = stage.story()
        assert stage.outstanding() == 0
        story.check()


@long_only
def test_a_reboot_with_a_wall_clock_that_went_back_loses_nothing(tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    with SqliteStage(tmp_path, query="lease=1", env=clock.environment()) as stage:
        for turn in range(times(2, 10)):
            stage.publish(turn * 30, 30, name="p")
            stage.publish(turn * 5, 5, name="later", delay=1.0)
            victim = stage.consumer(work=0.02)
            victim.until(lambda lines: len(lines) > 5)
            stage.strike(victim, 0.0, "reboot, clock -2 h")
            clock.jump(-HOURS)
            clock.restart()
        stage.consumer(concurrency=4)
        stage.until_settled(timeout=10)
        story = stage.story()
        tell(13, "reboots with a wall clock that went back", story)
        story.check()
        assert stage.damage() == ""
