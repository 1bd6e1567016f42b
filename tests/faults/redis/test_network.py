"""Rows 8, 9 and 10: connections that are reset, replies that are lost, black holes, and slow networks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.acts import begun, go_on
from tests.faults.plan import tell, times
from tests.faults.processes import Worker
from tests.faults.redis.stage import RedisStage
from tests.faults.stage import reply
from tests.servers.proxy import Proxy
from tests.servers.redis import RedisServer

CALL = b"nc:{work}:meta"
"""In every call of a script that publishes, settles or fetches."""


@pytest.fixture
def net(
    tmp_path: Path, start_redis: Callable[..., RedisServer], proxy_to: Callable[[int], Proxy]
) -> Iterator[tuple[RedisStage, Proxy]]:
    """All clients come through the proxy."""
    server = start_redis()
    proxy = proxy_to(server.port)
    with RedisStage(tmp_path, server, port=proxy.port) as stage:
        yield stage, proxy


def judge(stage: RedisStage, row: int, fault: str, workers: list[Worker], *, keep: bool = True) -> None:
    """The workers are told to stop; the last of them are consumers. All messages are kept where they were stored."""
    producers = [worker for worker in workers if begun(worker.lines, "acked")]
    states = [reply(producer, timeout=40) for producer in producers]
    for producer in producers:
        reply(producer, "stop")
    stage.until_settled()
    states += [reply(worker) for worker in workers if worker not in producers]
    story, stored = stage.story(), stage.stored()
    repeats = sum(state["repeats"] for state in states)
    lost = sum(state["lease lost"] for state in states)
    broken = sum(state["counts"].get("connections_lost", 0) for state in states)
    told = sum(state["counts"].get("data_lost", 0) for state in states)
    twice = [id for id, entries in stored.items() if entries > 1]
    note = f"connections lost: {broken}, published again by applications: {repeats}, leases lost: {lost}"
    tell(row, fault, story, f"{note}, stored twice: {len(twice)}")
    story.check()
    assert twice == []
    assert set(story.acked) <= set(stored)
    assert told == 0
    assert stage.debris() == []


def test_connections_that_are_reset(net: tuple[RedisStage, Proxy]) -> None:
    stage, proxy = net
    consumers = [stage.consumer(concurrency=4, work=0.005, keep=100_000) for _ in range(2)]
    producers = [stage.producer(at_once=4, keys=5, pause=0.03, keep=100_000) for _ in range(2)]
    for _ in range(times(20, 400)):
        go_on(producers, 5)
        time.sleep(stage.moments.next(0.0, 0.1))
        stage.journal.fault("all connections reset")
        proxy.cut()
    judge(stage, 8, "all connections reset", [*producers, *consumers])


@pytest.mark.parametrize("cut", [True, False])
def test_replies_that_are_lost(net: tuple[RedisStage, Proxy], cut: bool) -> None:
    """What was asked is done, and the answer never comes: a reset in its place, or silence."""
    stage, proxy = net
    stage.query = "lease=1&timeout=1"
    consumers = [stage.consumer(concurrency=4, work=0.005, keep=100_000) for _ in range(2)]
    producers = [stage.producer(at_once=4, keys=5, pause=0.03, keep=100_000) for _ in range(2)]
    for _ in range(times(10, 200) if cut else times(4, 40)):
        go_on(producers, 5)
        time.sleep(stage.moments.next(0.0, 0.1))
        stage.journal.fault("reply lost")
        proxy.drop_replies(after=CALL, cut=cut)
        if not cut:
            time.sleep(1.2)
            proxy.heal()
    assert proxy.counted.lost > 0
    judge(stage, 8, f"replies lost, {'and a reset' if cut else 'in silence'}", [*producers, *consumers])


def test_a_black_hole_is_detected_by_the_deadline(net: tuple[RedisStage, Proxy]) -> None:
    stage, proxy = net
    stage.query = "lease=1&timeout=1&patience=3"
    consumers = [stage.consumer(concurrency=4, work=0.005, keep=100_000) for _ in range(2)]
    producers = [stage.producer(at_once=4, keys=5, pause=0.03, keep=100_000) for _ in range(2)]
    for turn in range(times(3, 40)):
        go_on(producers)
        stage.journal.fault("black hole")
        proxy.blackhole()
        began = time.monotonic()
        if turn % 3 == 2:  # longer than the patience: the applications hear of it
            for producer in producers:
                producer.until(lambda lines: begun(lines, "error") > 0, timeout=3 + 2 + 2)
        else:
            time.sleep(stage.moments.next(0.2, 3.0))
        assert time.monotonic() - began < 9
        proxy.heal()
    judge(stage, 9, "black hole", [*producers, *consumers])


def test_half_open_connections_are_detected(net: tuple[RedisStage, Proxy]) -> None:
    """The server's host is gone without a word, and another takes its place: replies of the old one never come."""
    stage, proxy = net
    stage.query = "lease=1&timeout=1"
    consumers = [stage.consumer(concurrency=4, work=0.005, keep=100_000) for _ in range(2)]
    producers = [stage.producer(at_once=4, keys=5, pause=0.03, keep=100_000) for _ in range(2)]
    for _ in range(times(3, 40)):
        go_on(producers)
        stage.journal.fault("half-open")
        proxy.drop_replies()
        time.sleep(stage.moments.next(0.1, 1.5))
        proxy.heal()
        go_on(producers)
    judge(stage, 9, "half-open connections", [*producers, *consumers])


@pytest.mark.parametrize(("fault", "size", "delay"), [("one-byte slices", 1, 0.0), ("latency of 50 ms", None, 0.05)])
def test_slow_networks(net: tuple[RedisStage, Proxy], fault: str, size: int | None, delay: float) -> None:
    stage, proxy = net
    stage.query = "lease=2&timeout=5"
    if size:
        proxy.slices(size)
    proxy.delay(delay)
    stage.journal.fault(fault)
    consumers = [stage.consumer(concurrency=4, keep=100_000) for _ in range(2)]
    count = times(100, 2000)
    producer = stage.producer(count=count, at_once=8, keys=5, size=200, keep=100_000)
    producer.expect(f"produced {count}", timeout=300)
    judge(stage, 10, fault, [producer, *consumers])
    assert stage.story().redelivered == 0
