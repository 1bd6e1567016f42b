"""Row 19: a rebalance storm. Every second somebody joins the group, and somebody leaves it or is killed."""

from __future__ import annotations

import itertools
import time
from collections import deque

from tests.faults.acts import moments
from tests.faults.kafka.stage import LEASE, KafkaStage
from tests.faults.plan import tell, times
from tests.faults.stage import reply

ENDLESS = 1000
"""Attempts: no kill is one too many."""


def test_a_storm_loses_nothing_and_work_goes_on(stage: KafkaStage) -> None:
    producer = stage.producer(at_once=2, pause=0.02, keys=40)
    members = deque(stage.consumers(3, concurrency=2, work=0.02, max_attempts=ENDLESS))
    producer.until(lambda lines: len(lines) > 20)
    for turn in range(times(8, 200)):
        members.append(stage.start("consume", concurrency=2, work=0.02, max_attempts=ENDLESS))
        time.sleep(stage.moments.next(0.8, 1.2))
        going = members.popleft()
        if turn % 4 == 3:
            stage.journal.fault("killed")
            going.kill()
        else:
            stage.journal.fault("left")
            going.say("stop")
    reply(producer, "stop")
    over = stage.outstanding()
    stage.until_settled()
    story = stage.story()
    settled = sorted(at for each in moments(stage.journal_path, "settled").values() for at in each)
    silence = max(b - a for a, b in itertools.pairwise(settled))
    tell(19, "rebalance storm", story, f"outstanding at its end: {over}, longest silence: {silence:.1f} s")
    story.check()
    assert not story.groups["g"].dead
    assert silence < LEASE * 6, "work goes on"
    assert stage.debris() == []
