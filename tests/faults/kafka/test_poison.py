"""Row 12: a message that kills whoever handles it, among a thousand good ones."""

from __future__ import annotations

import random

import pytest

from tests.faults.acts import supervise
from tests.faults.kafka.stage import KafkaStage
from tests.faults.plan import SEED, long_only, tell, times

ATTEMPTS = 3


@pytest.mark.parametrize("turn", range(times(1, 6)))
def test_poison_is_dead_lettered_and_good_ones_flow(stage: KafkaStage, turn: int) -> None:
    rng = random.Random(f"{SEED}/{turn}")
    poison = sorted(rng.sample(range(1000), 1 if turn == 0 else rng.randint(1, 3)))
    stage.publish(0, 1000, name="p", orders={str(number): "die" for number in poison})
    stage.undertaker()
    crashes = supervise(stage, concurrency=rng.choice((1, 4)), attempts=ATTEMPTS)
    story = stage.story()
    dead = set(story.groups["g"].dead)
    tell(12, "messages that kill their process among 1000", story, f"poison={len(poison)} crashes={crashes}")
    story.check()
    assert dead == {f"p-{number}" for number in poison}
    assert crashes <= len(poison) * (ATTEMPTS + 1)
    assert stage.debris() == []


@long_only
def test_a_thousand_attempts_would_be_noticed(stage: KafkaStage) -> None:
    stage.publish(0, 20, name="p", orders={"3": "die"})
    stage.undertaker()
    assert supervise(stage, concurrency=1, most=6, attempts=1000) == 6
    assert "p-3" in stage.story().unsettled["g"]
