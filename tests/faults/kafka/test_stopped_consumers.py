"""Row 6: SIGSTOP past the lease. Others take over, the late ack changes nothing, and who was stopped goes on."""

from __future__ import annotations

from tests.faults.acts import begun
from tests.faults.kafka.stage import LEASE, KafkaStage
from tests.faults.plan import tell, times
from tests.faults.stage import reply


def test_a_stopped_consumer_is_replaced_and_its_late_ack_is_harmless(stage: KafkaStage) -> None:
    rounds = times(2, 40)
    producer = stage.producer(wait=True, keys=11)
    stopped, other = stage.consumers(2, work=0.05)
    for turn in range(rounds):
        before = begun(stopped.lines)
        producer.say(f"publish {turn * 40} 40")
        stopped.until(lambda lines: begun(lines) > before + 2 and begun(lines) > begun(lines, "done"))  # noqa: B023
        stage.journal.fault("SIGSTOP consumer")
        stopped.pause()
        stage.until_settled(timeout=LEASE * 8)
        assert stage.outstanding() == 0, stage.story().report()
        stopped.resume()
        reply(stopped, "status")
    producer.say(f"publish {rounds * 40} 40")
    producer.expect(f"produced {rounds * 40 + 40}")
    stage.until_settled()
    late = sum(reply(worker, "status")["lease lost"] for worker in (stopped, other))
    assert stage.debris() == []
    reply(stopped, "stop")
    story = stage.story()
    tell(6, f"SIGSTOP past a lease of {LEASE:g} s", story, f"late acks refused: {late}")
    story.check()
    assert story.redelivered
    assert late > 0, "nobody was stopped inside a handler"
    assert story.recovery(99) < LEASE * 4
