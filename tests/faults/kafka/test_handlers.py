"""Rows 20 and 22: handlers that take longer than the lease, also ones that block the loop, keep their messages."""

from __future__ import annotations

import pytest

from tests.faults.acts import inside_a_handler
from tests.faults.kafka.stage import KafkaStage
from tests.faults.plan import tell, times
from tests.faults.stage import reply

LEASE = 1.0
LEASES = 3
QUERY = f"lease={LEASE:g}&handover=1&partitions=4"


@pytest.mark.parametrize(("row", "how"), [(20, "work"), (22, "block")])
def test_long_handlers_keep_their_leases(stage: KafkaStage, row: int, how: str) -> None:
    stage.query = QUERY
    doing = "awaits" if how == "work" else "blocks the loop"
    count = times(2, 12)
    workers = stage.consumers(2, tuning={"strict": True}, **{how: LEASE * LEASES})
    for _ in range(count):
        stage.journal.fault(f"handler {doing}")
    stage.publish(0, count)
    stage.until_settled()
    story = stage.story()
    lost = sum(reply(worker, "status")["lease lost"] for worker in workers)
    warned = [sum("Process.handle blocks its event loop" in line for line in w.errors.splitlines()) for w in workers]
    tell(row, f"a handler that {doing} for {LEASES} leases", story, f"leases lost: {lost}, warnings: {sum(warned)}")
    story.check()
    assert sum(warned) == (len(story.acked) if how == "block" else 0), "one for each incident, and it names the handler"
    assert story.redelivered == lost == 0
    assert stage.debris() == []


def test_without_a_thread_leases_are_lost(stage: KafkaStage) -> None:
    """The negative control: a consumer that polls from its loop."""
    stage.query = QUERY
    stage.publish(0, 4)
    broken = stage.start("consume", block=LEASE * LEASES, tuning={"thread": False, "strict": True})
    broken.until(lambda lines: len(lines) > 1)
    stage.consumer()
    stage.until_settled()
    assert stage.story().redelivered > 0


def test_a_handler_longer_than_the_handover_is_revoked_without_a_stale_ack(stage: KafkaStage) -> None:
    """Its partition moves to another process; its late end settles nothing."""
    stage.publish(0, 12)
    slow = stage.consumer(concurrency=12, work=8.0)
    inside_a_handler(slow)
    stage.journal.fault("handler longer than the handover")
    stage.consumer(concurrency=12)
    stage.until_settled()
    slow.until(lambda lines: sum(line.startswith("done") for line in lines) == 12)
    story, lost = stage.story(), reply(slow)["lease lost"]
    tell(20, "a handler that works on while its partition moves", story, f"leases lost: {lost}")
    story.check()
    assert lost >= 1
    assert story.redelivered == lost
    assert stage.debris() == []
