"""Row 11: a consumer that is slower than its producers holds no more than its window, however much waits."""

from __future__ import annotations

import dataclasses

from tests.faults.kafka.stage import KafkaStage
from tests.faults.plan import tell, times
from tests.faults.report import Figures
from tests.faults.stage import reply

SIZE = 8_000
MB = 1 << 20
QUERY = "lease=5&handover=1&partitions=4&prefetch=200"


def judged(stage: KafkaStage, note: str) -> Figures:
    """What was published and is neither settled nor still in the store is lost."""
    left, story = stage.left(), stage.story()  # in this order: what was settled meanwhile counts twice, and not never
    gone = len(story.acked) - left - len(story.groups["g"].done)
    return dataclasses.replace(Figures.of(story, note), lost=max(0, gone))


def test_memory_is_bounded_however_much_waits(stage: KafkaStage) -> None:
    """The window is a partition's ``prefetch``, and 16 MB that the client library fetches ahead."""
    stage.query = QUERY
    count = times(12_000, 60_000)
    consumer = stage.consumer(work=0.05)
    producer = stage.producer(wait=True, at_once=64, size=SIZE)
    producer.say("publish 0 200")
    producer.expect("produced 200")
    stage.journal.fault("backlog")
    before = [reply(worker)["rss"] for worker in (consumer, producer)]
    producer.say(f"publish 200 {count}")
    producer.expect(f"produced {count + 200}", timeout=300)
    after = [reply(worker)["rss"] for worker in (consumer, producer)]
    grown = [(b - a) / MB for a, b in zip(before, after, strict=True)]
    waiting = stage.left() * SIZE / MB
    note = f"waiting={waiting:.0f} MB, consumer +{grown[0]:.1f} MB, producer +{grown[1]:.1f} MB"
    found = judged(stage, note)
    tell(11, "a consumer slower than its producer", found)
    assert found.lost == 0
    assert waiting > 80
    assert max(grown) < 48
