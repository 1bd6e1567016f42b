"""Row 5: SIGSTOP of the broker. Calls time out, nobody hangs, and everything goes on when it does."""

from __future__ import annotations

import time

from tests.faults.acts import begun, go_on
from tests.faults.kafka.judging import judge, load
from tests.faults.kafka.stage import QUERY, KafkaStage
from tests.faults.plan import tell, times
from tests.faults.stage import reply
from tests.servers.ports import until

PATIENCE = 3.0
_FEW = 100
"""Messages that are always under way."""


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


def test_a_broker_that_takes_itself_for_gone_is_found_again(mortal: KafkaStage) -> None:
    """When it goes on after its controller has given it up, it says for a moment that there are no brokers at all."""
    mortal.query = f"{QUERY}&patience={PATIENCE:g}"
    producers, consumers = load(mortal, pause=0.05)  # there is time to catch up
    moments = []
    for _ in range(times(3, 30)):
        go_on(producers, 40)
        seconds = mortal.moments.next(3.0, 4.5)
        mortal.journal.fault("SIGSTOP broker")
        mortal.kafka.brokers[0].pause()
        time.sleep(seconds)
        mortal.kafka.brokers[0].resume()
        began = time.monotonic()
        go_on(producers)
        until(lambda: mortal.outstanding() < _FEW, timeout=60, what="the consumers to catch up")
        moments.append(time.monotonic() - began)
    note = f"consumers have caught up after at most {max(moments):.1f} s"
    judge(mortal, 5, "SIGSTOP broker for 3 to 4.5 s", [*producers, *consumers], note=note)


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
