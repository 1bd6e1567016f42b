"""Row 6: SIGSTOP past the lease. Others take over, the late ack changes nothing, and who was stopped goes on."""

from __future__ import annotations

from tests.faults.plan import tell, times
from tests.faults.redis.stage import RedisStage
from tests.faults.stage import reply

LEASE = 1.0


def test_a_stopped_consumer_is_replaced_and_its_late_ack_is_harmless(stage: RedisStage) -> None:
    rounds = times(3, 60)
    producer = stage.producer(wait=True)
    stopped, other = stage.consumer(work=0.05), stage.consumer(work=0.01)
    for turn in range(rounds):
        begun = len(stopped.lines)
        other.pause()  # for a moment, or it may take them all
        producer.say(f"publish {turn * 40} 40")
        stopped.until(lambda lines: len(lines) > begun + 2)  # noqa: B023
        stage.journal.fault("SIGSTOP consumer")
        stopped.pause()
        other.resume()
        stage.until_settled(timeout=LEASE * 8)
        assert stage.outstanding() == 0, stage.story().report()
        stopped.resume()
        reply(stopped, "status")
    producer.say(f"publish {rounds * 40} 40")
    producer.expect(f"produced {rounds * 40 + 40}")
    stage.until_settled()
    late = sum(reply(worker, "status")["lease lost"] for worker in (stopped, other))
    reply(stopped, "stop")
    story = stage.story()
    tell(6, f"SIGSTOP past a lease of {LEASE:g} s", story, f"late acks refused: {stage.refused()}, seen: {late}")
    story.check()
    assert story.redelivered
    assert stage.refused() + late > 0, "nobody was stopped inside a handler"
    assert story.recovery(99) < LEASE * 4
    assert stage.left() == 0
    assert stage.debris() == []
