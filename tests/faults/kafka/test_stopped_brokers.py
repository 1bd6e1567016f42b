"""Row 5: SIGSTOP of the broker. Calls time out, nobody hangs, and everything goes on when it does."""

from __future__ import annotations

import time

from tests.faults.acts import begun, go_on
from tests.faults.kafka.judging import judge, load
from tests.faults.kafka.stage import QUERY, KafkaStage
from tests.faults.plan import tell, times
from tests.faults.stage import reply

PATIENCE = 3.0


def test_a_stopped_broker_is_waited_for_and_no_longer(mortal: KafkaStage) -> None:
    mortal.query = f"{QUERY}&patience={PATIENCE:g}"
    producers, consumers = load(mortal)
    broker = mortal.kafka.brokers[0]
    waited = []
    for _ in range(times(1, 10)):
        go_on(producers, 40)
        errors = [begun(producer.lines, "error") for producer in producers]
        mortal.journal.fault("SIGSTOP broker")
        broker.pause()
        began = time.monotonic()
        for producer, before in zip(producers, errors, strict=True):
            producer.until(lambda lines: begun(lines, "error") > before, timeout=20)  # noqa: B023
        waited.append(time.monotonic() - began)
        time.sleep(max(0.0, times(5, 30) - waited[-1]))
        for worker in (*producers, *consumers):
            reply(worker, timeout=5)  # its loop runs
        broker.resume()
    go_on(producers)
    note = f"an error after at most {max(waited):.2f} s"
    judge(mortal, 5, f"SIGSTOP broker for {times(5, 30)} s", [*producers, *consumers], note=note)
    assert max(waited) < 3 * PATIENCE


def test_an_outage_takes_nothing_from_the_living(mortal: KafkaStage) -> None:
    """A broker that comes back gives all members a lease's time to be heard of: their handlers go on meanwhile. Finding
    it again takes the client library up to three seconds, which a lease has to outlast.
    """
    mortal.query = QUERY.replace("lease=2", "lease=6")
    workers = mortal.consumers(2, concurrency=4, work=10.0)
    mortal.publish(0, 8)
    for worker in workers:
        worker.until(lambda lines: begun(lines) > 0)
    mortal.journal.fault("broker killed under long handlers")
    mortal.kafka.restart(kill=True)
    mortal.until_settled()
    lost = sum(reply(worker)["lease lost"] for worker in workers)
    story = mortal.story()
    tell(3, "broker killed under long handlers", story, f"leases lost: {lost}")
    story.check()
    assert story.redelivered == lost == 0
    assert mortal.debris() == []
