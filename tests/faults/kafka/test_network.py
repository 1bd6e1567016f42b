"""Rows 8, 9 and 10: connections that are reset, replies that are lost, black holes, and slow networks."""

from __future__ import annotations

import time

import pytest

from tests.faults.acts import begun, go_on
from tests.faults.kafka.judging import KEPT, judge, load
from tests.faults.kafka.stage import QUERY, KafkaStage
from tests.faults.plan import times


def test_connections_that_are_reset(net: KafkaStage) -> None:
    producers, consumers = load(net, pause=0.03)
    for _ in range(times(4, 300)):
        go_on(producers, 5)
        time.sleep(net.moments.next(0.0, 0.1))
        net.journal.fault("all connections reset")
        net.kafka.proxies[0].cut()
    judge(net, 8, "all connections reset", [*producers, *consumers])


def test_replies_that_are_lost(net: KafkaStage) -> None:
    """What was asked is done, and in place of the answer comes a reset."""
    producers, consumers = load(net, pause=0.03)
    proxy = net.kafka.proxies[0]
    for _ in range(times(5, 200)):
        go_on(producers, 5)
        time.sleep(net.moments.next(0.0, 0.1))
        net.journal.fault("reply lost")
        proxy.drop_replies(after=net.topic().encode(), cut=True)  # of a produce request, or of a commit
    assert proxy.counted.lost > 0
    proxy.heal()
    judge(net, 8, "replies lost, and a reset", [*producers, *consumers])


def test_a_black_hole_is_detected_by_the_deadline(net: KafkaStage) -> None:
    net.query = f"{QUERY}&patience=3"
    producers, consumers = load(net, pause=0.03)
    proxy = net.kafka.proxies[0]
    for turn in range(times(2, 30)):
        go_on(producers)
        net.journal.fault("black hole")
        errors = [begun(producer.lines, "error") for producer in producers]
        proxy.blackhole()
        if turn % 2:  # longer than the patience: the applications hear of it
            for producer, before in zip(producers, errors, strict=True):
                producer.until(lambda lines: begun(lines, "error") > before, timeout=3 * 3)  # noqa: B023
        else:
            time.sleep(net.moments.next(0.2, 2.5))
        proxy.heal()
    judge(net, 9, "black hole", [*producers, *consumers])


def test_half_open_connections_are_detected(net: KafkaStage) -> None:
    """Requests arrive, and replies never come."""
    net.query = f"{QUERY}&patience=3&socket.timeout.ms=1500"
    producers, consumers = load(net, pause=0.03)
    proxy = net.kafka.proxies[0]
    for _ in range(times(1, 30)):
        go_on(producers)
        net.journal.fault("half-open")
        proxy.drop_replies()
        time.sleep(net.moments.next(0.5, 2.5))
        proxy.heal()
    go_on(producers)
    judge(net, 9, "half-open connections", [*producers, *consumers])


@pytest.mark.parametrize(("fault", "size", "delay"), [("one-byte slices", 1, 0.0), ("latency of 50 ms", None, 0.05)])
def test_slow_networks(net: KafkaStage, fault: str, size: int | None, delay: float) -> None:
    net.query = QUERY.replace("lease=2", "lease=6")
    proxy = net.kafka.proxies[0]
    if size:
        proxy.slices(size)
    proxy.delay(delay)
    net.journal.fault(fault)
    consumers = net.consumers(2, concurrency=4, keep=KEPT)
    count = times(50, 2000)
    producer = net.producer(count=count, at_once=8, keys=5, size=200, keep=KEPT)
    producer.expect(f"produced {count}", timeout=300)
    judge(net, 10, fault, [producer, *consumers])
    assert net.story().redelivered == 0
