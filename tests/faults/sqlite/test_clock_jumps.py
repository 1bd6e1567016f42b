"""Row 13: the wall clock jumps by two hours while everything runs; retries, delays and leases do not care."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.clocks import Clock
from tests.faults.history import Story
from tests.faults.jumps import HOURS, WORK, judge, jump_about
from tests.faults.plan import long_only, needs_compiler, some, tell, times
from tests.faults.sqlite.stage import SqliteStage

pytestmark = needs_compiler


@pytest.mark.parametrize("direction", some(1, [-1, 1]))
def test_nothing_is_early_late_or_lost(tmp_path: Path, direction: int) -> None:
    clock = Clock(tmp_path)
    with SqliteStage(tmp_path, query="lease=0.5", env=clock.environment()) as stage:
        consumers = [stage.consumer(**WORK) for _ in range(2)]
        lost = jump_about(stage, clock, consumers, direction)
        judge(stage, "wall clock jumps", direction, lost)


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
