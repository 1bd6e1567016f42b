"""Row 1: what was acknowledged survives ``kill -9`` of whoever published it."""

from __future__ import annotations

import itertools

import pytest

from tests.faults.plan import some, tell, times
from tests.faults.processes import Worker
from tests.faults.sqlite.stage import SqliteStage


@pytest.mark.parametrize("durability", some(1, ["full", "normal", "off"]))
def test_acknowledged_messages_survive_their_producers(stage: SqliteStage, durability: str) -> None:
    stage.query = f"lease=1&durability={durability}"
    stage.consumer(concurrency=4)
    number = itertools.count()

    def begin(victim: Worker) -> None:
        victim.say(f"publish {next(number) * 100_000} 100000")
        victim.until(lambda lines: any(line.startswith("acked") for line in lines))

    def start() -> Worker:
        return stage.producer(wait=True, at_once=8, keys=5)

    stage.strikes(start, times(3, 100), "kill -9 producer", before=begin, most=0.15)
    stage.until_settled()
    story = stage.story()
    tell(1, f"kill -9 producer, durability={durability}", story)
    story.check()
    assert not story.duplicated
    assert stage.damage() == ""


def test_the_check_can_fail(stage: SqliteStage) -> None:
    """A producer that says so before it is so."""
    stage.consumer()
    for _ in range(5):
        producer = stage.producer(at_once=50, broken="claims")
        producer.until(lambda lines: any(line.startswith("acked") for line in lines))
        stage.strike(producer, 0.0, "kill -9 producer")
    stage.until_settled(timeout=2)
    assert stage.story().lost["g"]
