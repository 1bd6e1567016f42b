"""Row 5: SIGSTOP of the server. Calls time out, nobody hangs, and everything goes on when it does."""

from __future__ import annotations

import time

from tests.faults.acts import begun
from tests.faults.plan import tell, times
from tests.faults.redis.stage import RedisStage
from tests.faults.stage import reply

TIMEOUT, PATIENCE = 1.0, 2.0


def test_a_stopped_server_is_waited_for_and_no_longer(stage: RedisStage) -> None:
    stage.query = f"lease=1&timeout={TIMEOUT:g}&patience={PATIENCE:g}"
    consumers = [stage.consumer(concurrency=4, work=0.005, keep=100_000) for _ in range(2)]
    producers = [stage.producer(at_once=4, keys=5, pause=0.01, keep=100_000) for _ in range(2)]
    waited = []
    for _ in range(times(2, 10)):
        for producer in producers:
            seen, errors = len(producer.lines), begun(producer.lines, "error")
            producer.until(lambda lines: len(lines) > seen + 40)  # noqa: B023
        errors = [begun(producer.lines, "error") for producer in producers]
        stage.journal.fault("SIGSTOP server")
        stage.server.pause()
        began = time.monotonic()
        for producer, before in zip(producers, errors, strict=True):
            producer.until(lambda lines: begun(lines, "error") > before, timeout=20)  # noqa: B023
        waited.append(time.monotonic() - began)
        time.sleep(max(0.0, times(4, 30) - waited[-1]))
        for worker in (*producers, *consumers):
            reply(worker, timeout=2)  # its loop runs
        stage.server.resume()
    states = [reply(producer, timeout=30) for producer in producers]
    for producer in producers:
        reply(producer, "stop")
    stage.until_settled()
    states += [reply(consumer) for consumer in consumers]
    story, stored = stage.story(), stage.stored()
    repeats = sum(state["repeats"] for state in states)
    lost = sum(state["lease lost"] for state in states)
    note = f"an error after at most {max(waited):.2f}s, published again by applications: {repeats}, leases lost: {lost}"
    tell(5, f"SIGSTOP server for {times(4, 30)} s", story, note)
    story.check()
    assert [id for id, entries in stored.items() if entries > 1] == []
    assert max(waited) < PATIENCE + 2 * TIMEOUT + 1
    assert sum(state["counts"].get("data_lost", 0) for state in states) == 0
    assert stage.debris() == []
