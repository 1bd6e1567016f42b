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
from tests.faults.kafka.stage import LEASE, KafkaStage
from tests.faults.plan import needs_compiler, some, tell, times
from tests.faults.stage import reply
from tests.servers.kafka_cluster import KafkaCluster
from tests.servers.ports import until

pytestmark = needs_compiler

HOURS = 7200
RETRY = 0.6
DELAY = 0.8
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
    """Ahead of the brokers nothing can be published."""
    jumps, count = times(4, 40), times(120, 900)
    failing = {str(number): "fail once" for number in range(0, count, 10)}
    workers = stage.consumers(2, retry=RETRY, concurrency=4, work=0.01)
    producers = [
        stage.producer(count=count, at_once=1, pause=0.02, orders=failing),
        stage.producer(name="late", count=count // 4, at_once=1, pause=0.08, delay=DELAY),
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
    lost = sum(reply(worker, "status")["lease lost"] for worker in workers)
    story, gaps, waits = stage.story(), retry_gaps(stage.journal_path), times_from(stage.journal_path, "late")
    between = on_their_way(stage.journal_path, "late", "clock +2 h")
    note = (
        f"retries after {min(gaps):.2f} to {max(gaps):.2f}s (wanted {RETRY}), delayed by {min(waits):.2f} to"
        f" {max(waits):.2f}s (wanted {DELAY}), leases lost {lost}"
    )
    tell(13, f"clients' wall clocks jump, {'+' if direction > 0 else '-'}2 h first", story, note)
    story.check()
    assert early(gaps, RETRY) == []
    assert len(early(waits, DELAY)) <= len(between), "only what was between its producer and its owner may be early"
    assert max(gaps) < RETRY + 2
    assert max(waits) < DELAY + 2
    assert lost == 0
    assert story.redelivered == len(gaps), "something was delivered again that had not failed"
    assert not story.duplicated
    assert stage.debris() == []


@pytest.mark.parametrize("direction", [-1, 1])
def test_the_next_owner_of_a_retry_has_another_clock(stage: KafkaStage, clock: Clock, direction: int) -> None:
    """Behind: it waits its time once more, at most. Ahead: it comes at once."""
    count = 8
    owner = stage.consumer(retry=LONG, concurrency=count)
    producer = stage.producer(count=count, orders={str(number): "fail once" for number in range(count)})
    producer.expect(f"produced {count}")
    has_begun(owner, count)
    stage.producer(name="late", count=count, delay=LONG).expect(f"produced {count}")
    until_committed(stage, count)
    stage.journal.fault("kill -9 consumer, and the next one's clock is another one")
    owner.kill()
    clock.jump(direction * HOURS)
    stage.consumer(retry=LONG, concurrency=count)
    stage.until_settled(timeout=LONG * 4)
    story = stage.story()
    gaps, waits = retry_gaps(stage.journal_path), times_from(stage.journal_path, "late")
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
