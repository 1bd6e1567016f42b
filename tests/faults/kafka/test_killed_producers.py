"""Row 1: what was acknowledged survives ``kill -9`` of whoever published it."""

from __future__ import annotations

import itertools

from tests.faults.acts import begun
from tests.faults.kafka.stage import KafkaStage
from tests.faults.plan import long_only, tell, times
from tests.faults.processes import Worker


def test_acknowledged_messages_survive_their_producers(stage: KafkaStage) -> None:
    stage.consumer(concurrency=4)
    number = itertools.count()

    def begin(victim: Worker) -> None:
        victim.say(f"publish {next(number) * 100_000} 100000")
        victim.until(lambda lines: begun(lines, "acked") > 0)

    def start() -> Worker:
        return stage.producer(wait=True, at_once=8, keys=5)

    stage.strikes(start, times(4, 100), "kill -9 producer", before=begin, most=0.15)
    stage.until_settled()
    story = stage.story()
    tell(1, "kill -9 producer", story)
    story.check()
    assert not story.duplicated
    assert stage.debris() == []


@long_only
def test_the_check_can_fail(stage: KafkaStage) -> None:
    """A producer that says so before it is so."""
    stage.consumer()
    for _ in range(5):
        producer = stage.producer(at_once=50, broken="claims")
        producer.until(lambda lines: begun(lines, "acked") > 0)
        stage.strike(producer, 0.0, "kill -9 producer")
    stage.until_settled(timeout=5)
    assert stage.story().lost["g"]
