"""Row 2: ``kill -9`` of consumers in mid-handler. Nothing is lost, and what they had only fetched loses no attempt."""

from __future__ import annotations

from pathlib import Path

from tests.faults.acts import has_begun, inside_a_handler, lost_attempts
from tests.faults.history import Journal
from tests.faults.plan import long_only, tell, times
from tests.faults.processes import Worker
from tests.faults.sqlite.stage import SqliteStage
from tests.faults.stage import reply

ENDLESS = 1000
"""Attempts: no kill is one too many."""


def test_what_a_killed_consumer_had_is_delivered_again(stage: SqliteStage) -> None:
    kills = times(5, 240)
    stage.undertaker()
    producer = stage.producer(at_once=1, pause=0.03, keys=7)  # slower than they are: nothing waits but for recovery

    def start() -> Worker:
        return stage.start("consume", concurrency=2, work=0.1, max_attempts=ENDLESS)

    stage.strikes(start, kills, "kill -9 consumer", before=inside_a_handler)
    reply(producer, "stop")
    stage.consumer(concurrency=4, work=0.001, max_attempts=ENDLESS)
    stage.until_settled()
    story = stage.story()
    wronged = lost_attempts(stage.journal_path)
    tell(2, "kill -9 consumer", story, f"attempts counted of handlers that had not begun: {len(wronged)}")
    story.check()
    # A suspect's attempt is stored before its handler is called, and some kills fall between the two: one message each.
    # Neighbours that lost theirs would be several with every kill.
    assert len(wronged) <= max(1, kills // 20)
    assert not story.groups["g"].dead
    assert story.redelivered >= kills / 2
    assert stage.damage() == ""


def test_an_attempt_too_many_would_be_noticed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    for attempt in (1, 1, 3, 5):
        journal.delivered("m", group="g", attempt=attempt)
    journal.close()
    assert lost_attempts(tmp_path / "journal") == [("m", 5)]


@long_only
def test_a_message_that_is_taken_back_in_time_is_not_settled_by_the_dead(stage: SqliteStage) -> None:
    """A consumer that acks before it works: the check finds what it never did."""
    stage.publish(0, 20)
    consumer = stage.consumer(concurrency=4, work=5.0, broken="acks first")
    has_begun(consumer, 4)
    stage.strike(consumer, 0.2, "kill -9 consumer")
    stage.consumer()
    stage.until_settled(timeout=2)
    assert stage.story().unsettled["g"]
