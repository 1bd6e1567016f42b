"""Row 21: every message is published several times, by producers that are killed: it has one effect."""

from __future__ import annotations

from collections import Counter

from tests.faults.kafka.stage import QUERY, KafkaStage
from tests.faults.plan import long_only, tell, times
from tests.faults.report import Figures


def test_forced_duplicates_have_one_effect(stage: KafkaStage) -> None:
    """Whoever was killed is started again from its first message, as one that does not know what was stored."""
    stage.consumer(concurrency=4)
    kills, copies = times(2, 25), 0
    for number in range(kills):
        victim = stage.producer(name="p", first=0, copies=2, at_once=8)
        victim.until(lambda lines: len(lines) > 100 + 20 * number)  # noqa: B023
        stage.strike(victim, stage.moments.next(0.0, 0.1), "kill -9 producer")
        copies += sum(line.startswith("acked") for line in victim.lines)
    assert copies > 40 * kills
    stage.publish(0, 100, name="p", copies=3)
    copies += 300
    stage.until_settled()
    story = stage.story()
    faults = Counter({"duplicate publish": copies - len(story.acked)})
    tell(21, "every message published several times", Figures.of(story, f"acknowledged copies: {copies}", faults))
    story.check()
    assert not story.duplicated
    assert story.redelivered == 0


@long_only
def test_without_the_window_it_would_be_seen(stage: KafkaStage) -> None:
    stage.query = f"{QUERY}&dedup_window=0.001"
    stage.consumer()
    for _ in range(2):
        stage.publish(0, 20, name="p")
    stage.until_settled(timeout=10)
    assert stage.story().duplicated
