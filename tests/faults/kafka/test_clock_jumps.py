"""Row 13: the clients' wall clocks jump by two hours. Who has a partition does not care; whoever takes it over goes by
his own clock, and makes nobody wait longer than he was told to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.acts import early, has_begun, moments, retry_gaps, times_from
from tests.faults.clocks import Clock
from tests.faults.jumps import HOURS, LATE, WORK, judge, jump_about
from tests.faults.kafka.stage import LEASE, KafkaStage
from tests.faults.plan import needs_compiler, some, tell
from tests.servers.kafka_cluster import KafkaCluster
from tests.servers.ports import until

pytestmark = needs_compiler

LONG = 6.0
"""Longer than it takes that somebody else takes over."""


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


@pytest.fixture
def stage(tmp_path: Path, clock: Clock, kafka_broker: KafkaCluster) -> Iterator[KafkaStage]:
    """The broker's clock stays."""
    with KafkaStage(tmp_path, kafka_broker, env=clock.environment()) as stage:
        yield stage


def test_who_is_two_hours_ahead_of_the_brokers_is_refused_until_his_clock_is_right(
    stage: KafkaStage, clock: Clock
) -> None:
    producer = stage.producer(wait=True, at_once=1)
    producer.say("publish 0 5")
    producer.expect("produced 5")
    clock.jump(HOURS)
    producer.say("publish 5 5")
    producer.expect("produced 10")
    clock.jump(-HOURS)
    producer.say("publish 10 5")
    producer.expect("produced 15")
    errors = [line for line in producer.lines if line.startswith("error")]
    assert errors == ["error PublishError Broker: Invalid timestamp"] * 5
    stage.consumer()
    stage.until_settled()
    stage.story().check()
    assert len(stage.story().groups["g"].done) == 10


@pytest.mark.parametrize("direction", some(1, [-1, 1]))
def test_nothing_is_early_late_or_lost(stage: KafkaStage, clock: Clock, direction: int) -> None:
    """Ahead of the brokers nothing can be published. What is between its producer and its owner may be early."""
    lost = jump_about(stage, clock, stage.consumers(2, **WORK), direction)
    between = on_their_way(stage.journal_path, LATE, "clock +2 h")
    judge(stage, "clients' wall clocks jump", direction, lost, may_be_early=len(between))
    assert stage.debris() == []


@pytest.mark.parametrize("direction", [-1, 1])
def test_the_next_owner_of_a_retry_has_another_clock(stage: KafkaStage, clock: Clock, direction: int) -> None:
    """Behind: it waits its time once more, at most. Ahead: it comes at once."""
    count = 8
    owner = stage.consumer(retry=LONG, concurrency=count)
    producer = stage.producer(count=count, orders={str(number): "fail once" for number in range(count)})
    producer.expect(f"produced {count}")
    has_begun(owner, count)
    stage.producer(name=LATE, count=count, delay=LONG).expect(f"produced {count}")
    until_committed(stage, count)
    stage.journal.fault("kill -9 consumer, and the next one's clock is another one")
    owner.kill()
    clock.jump(direction * HOURS)
    stage.consumer(retry=LONG, concurrency=count)
    stage.until_settled(timeout=LONG * 4)
    story = stage.story()
    gaps, waits = retry_gaps(stage.journal_path), times_from(stage.journal_path, LATE)
    note = f"retries after {min(gaps):.2f} to {max(gaps):.2f}s, delays of {min(waits):.2f} to {max(waits):.2f}s"
    tell(13, f"the next owner's clock is 2 h {'ahead' if direction > 0 else 'behind'}", story, note)
    story.check()
    assert len(gaps) == len(waits) == count
    assert stage.debris() == []
    if direction < 0:
        assert early(gaps, LONG) == early(waits, LONG) == []
        assert max(gaps + waits) < 2 * LONG + LEASE + 3
    else:
        assert max(gaps + waits) < LONG + LEASE + 3


def until_committed(stage: KafkaStage, count: int) -> None:
    """The broker knows of so many that failed."""

    def known() -> int:
        with stage._client("g") as client:
            return sum(len(window._known) for _, window, _, _ in stage._windows(client, "work"))

    until(lambda: known() >= count, timeout=10, what="the commit of what failed")


def on_their_way(journal: Path, prefix: str, fault: str) -> list[str]:
    """Messages that were being published in the half second before such a fault."""
    events = map(json.loads, journal.read_text().splitlines())
    struck = [event["at"] for event in events if event["what"] == "fault" and event["id"] == fault]
    published = moments(journal, "attempted")
    return [id for id in published if id.startswith(prefix) and any(0 < at - published[id][0] < 0.5 for at in struck)]
