"""Row 11: a consumer that is slower than its producers holds no more than its window, however much waits."""

from __future__ import annotations

from tests.faults.sqlite.plan import tell, times
from tests.faults.sqlite.stage import Stage, reply

SIZE = 8_000
MB = 1 << 20


def test_memory_is_bounded_however_much_waits(stage: Stage) -> None:
    stage.query = "lease=5&durability=off"
    count = times(6_000, 40_000)
    consumer = stage.consumer(work=0.05)
    producer = stage.producer(wait=True, at_once=64, size=SIZE)
    producer.say("publish 0 200")
    producer.expect("produced 200")
    before = [reply(worker)["rss"] for worker in (consumer, producer)]
    producer.say(f"publish 200 {count}")
    producer.expect(f"produced {count + 200}", timeout=300)
    after = [reply(worker)["rss"] for worker in (consumer, producer)]
    grown = [(b - a) / MB for a, b in zip(before, after, strict=True)]
    waiting = stage.left() * SIZE / MB
    tell(11, "slow consumer", f"seed={stage.seed} published={count + 200} waiting={waiting:.0f} MB"
         f" the consumer grew by {grown[0]:.1f} MB, the producer by {grown[1]:.1f} MB")  # fmt: skip
    assert waiting > 40
    assert max(grown) < 24
