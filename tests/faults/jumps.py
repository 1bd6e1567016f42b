"""Row 13: the wall clock jumps by two hours while everything runs; retries, delays and leases do not care."""

from __future__ import annotations

from tests.faults.acts import early, retry_gaps, times_from
from tests.faults.clocks import Clock
from tests.faults.plan import tell, times
from tests.faults.processes import Worker
from tests.faults.stage import Stage, reply

__all__ = ["DELAY", "HOURS", "LATE", "WORK", "judge", "jump_about"]

HOURS = 7200
RETRY = 0.6
DELAY = 0.8
LATE = "late"
"""So the ids of messages begin that are published with the delay."""
WORK = {"retry": RETRY, "concurrency": 4, "work": 0.01}
"""For consumers."""


def jump_about(stage: Stage, clock: Clock, consumers: list[Worker], direction: int) -> int:
    """Several times in the midst of publishing, to and fro; how many leases the consumers have lost by the end."""
    jumps, count = times(4, 40), times(120, 900)
    failing = {str(number): "fail once" for number in range(0, count, 10)}
    producers = [
        stage.producer(count=count, at_once=1, pause=0.02, orders=failing),
        stage.producer(name=LATE, count=count // 4, at_once=1, pause=0.08, delay=DELAY),
    ]
    for jump in range(jumps):
        seen = len(producers[0].lines)
        producers[0].until(lambda lines: len(lines) >= min(seen + count // jumps - 3, count))  # noqa: B023
        forward = direction * (-1) ** jump
        stage.journal.fault(f"clock {'+' if forward > 0 else '-'}2 h")
        clock.jump(forward * HOURS)
    for producer, produced in zip(producers, (count, count // 4), strict=True):
        producer.expect(f"produced {produced}", timeout=60)
    stage.until_settled(timeout=20)
    return sum(reply(consumer, "status")["lease lost"] for consumer in consumers)


def judge(stage: Stage, what: str, direction: int, lost: int, *, may_be_early: int = 0) -> None:
    """``may_be_early``: so many of those that were published with the delay."""
    story, gaps, waits = stage.story(), retry_gaps(stage.journal_path), times_from(stage.journal_path, LATE)
    note = (
        f"retries after {min(gaps):.2f} to {max(gaps):.2f}s (wanted {RETRY}), delayed by {min(waits):.2f} to"
        f" {max(waits):.2f}s (wanted {DELAY}), leases lost {lost}"
    )
    tell(13, f"{what}, {'+' if direction > 0 else '-'}2 h first", story, note)
    story.check()
    assert early(gaps, RETRY) == []
    assert len(early(waits, DELAY)) <= may_be_early, early(waits, DELAY)
    assert max(gaps) < RETRY + 2
    assert max(waits) < DELAY + 2
    assert lost == 0
    assert story.redelivered == len(gaps), "something was delivered again that had not failed"
    assert not story.duplicated
