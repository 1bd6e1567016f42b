"""Rows 3 and 18: brokers are killed under load, a single one, and the leaders among three."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.faults.acts import go_on
from tests.faults.kafka.judging import judge, load
from tests.faults.kafka.stage import KafkaStage
from tests.faults.plan import times
from tests.servers.kafka_cluster import KafkaCluster


@pytest.mark.parametrize(
    ("row", "fault", "count", "down"),
    [(3, "kill -9 broker", times(1, 30), 3.0), (18, "kill -9 and restart at once", times(3, 50), 0.0)],
)
def test_nothing_is_lost(mortal: KafkaStage, row: int, fault: str, count: int, down: float) -> None:
    """``down``: for up to so many seconds."""
    producers, consumers = load(mortal)
    broker = mortal.kafka.brokers[0]
    for _ in range(count):
        go_on(producers)
        time.sleep(mortal.moments.next(0.0, 0.3))
        mortal.journal.fault(fault)
        broker.kill()
        time.sleep(mortal.moments.next(0.0, down))
        broker.start()
    go_on(producers)
    judge(mortal, row, fault, [*producers, *consumers])


@pytest.mark.timeout(1200)
def test_leaders_of_three_are_killed(tmp_path: Path, kafka_cluster: KafkaCluster) -> None:
    """Each time the leader of another partition; two others have what was acknowledged, and go on without it."""
    with KafkaStage(tmp_path, kafka_cluster) as stage:
        producers, consumers = load(stage)
        for turn in range(times(1, 20)):
            go_on(producers)
            time.sleep(stage.moments.next(0.0, 0.3))
            leader = kafka_cluster.leader(stage.topic(), turn % 4)
            stage.journal.fault("kill -9 leader of three")
            leader.kill()
            go_on(producers)
            leader.start()
            kafka_cluster.wait_ok()
        judge(stage, 3, "kill -9 leader of three", [*producers, *consumers])
