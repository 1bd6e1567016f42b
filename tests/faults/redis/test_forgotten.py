"""Row 16: the server forgets everything under load. Loss is reported, and what is published from then on is safe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.acts import begun
from tests.faults.history import Story
from tests.faults.plan import tell, times
from tests.faults.processes import Worker
from tests.faults.redis.stage import RedisStage
from tests.faults.stage import reply
from tests.servers.ports import until
from tests.servers.redis import RedisServer


@pytest.fixture
def forgetful(tmp_path: Path, start_redis: Callable[..., RedisServer]) -> Iterator[RedisStage]:
    with RedisStage(tmp_path, start_redis(appendfsync=None)) as stage:
        yield stage


def flush(stage: RedisStage) -> None:
    with stage.server.client() as client:
        client.flushall()


def restart(stage: RedisStage) -> None:
    stage.server.restart(kill=True)


@pytest.mark.parametrize(("fault", "forget"), [("FLUSHALL", flush), ("restart without persistence", restart)])
def test_loss_is_reported_and_traffic_goes_on(
    forgetful: RedisStage, fault: str, forget: Callable[[RedisStage], None]
) -> None:
    stage = forgetful
    consumers = [stage.consumer(concurrency=2, work=0.03) for _ in range(2)]  # slower than what comes: it can be lost
    producers = [stage.producer(at_once=2, keys=5, pause=0.01) for _ in range(2)]
    rounds = times(3, 60)
    told = []
    for _ in range(rounds):
        go_on(producers, consumers)
        forget(stage)
        stage.journal.fault(fault)
        go_on(producers, consumers)
        told.append([losses(worker) for worker in (*producers, *consumers)])
    for producer in producers:
        reply(producer, "stop")
    stage.until_settled(timeout=8)
    story = stage.story()
    gone = story.unsettled.get("g", set())
    tell(16, fault, story, f"lost messages: {len(gone)}; losses told of, by each client after each fault: {told}")
    judge(story, gone, told, rounds)
    assert stage.debris() == []


def go_on(producers: list[Worker], consumers: list[Worker]) -> None:
    """Until each producer, and the consumers together, have done so much more: one of them may do it all."""
    for producer in producers:
        seen = len(producer.lines)
        producer.until(lambda lines: len(lines) > seen + 20)  # noqa: B023

    def done() -> int:
        return sum(begun(consumer.lines, "done") for consumer in consumers)

    before = done()
    until(lambda: done() > before + 20, timeout=20, what="consumers that go on")


def losses(worker: Worker) -> int:
    return int(reply(worker)["counts"].get("data_lost", 0))


def judge(story: Story, gone: set[str], told: list[list[int]], rounds: int) -> None:
    """What was begun to be published after the last fault is there, and each fault was told of."""
    last = story.struck[-1]
    assert {id for id in gone if story.attempted[id] > last} == set()
    assert not story.phantoms
    assert gone, "nothing was there to be lost"
    assert all(sum(after) > sum(before) for before, after in zip([[0], *told], told, strict=False)), told
    assert len(story.struck) == rounds
