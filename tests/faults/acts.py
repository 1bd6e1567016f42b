"""What the fault tests of all transports do to workers, and read from a journal."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from tests.faults.plan import tell
from tests.faults.processes import Worker
from tests.faults.stage import Stage
from tests.servers.ports import until

__all__ = [
    "begun",
    "busiest",
    "check_terminated",
    "early",
    "go_on",
    "has_begun",
    "inside_a_handler",
    "lost_attempts",
    "moments",
    "retry_gaps",
    "settles",
    "supervise",
    "terminate",
    "times_from",
]


def begun(lines: list[str], word: str = "begun") -> int:
    """How many of its lines begin so."""
    return sum(line.startswith(word) for line in lines)


def inside_a_handler(consumer: Worker) -> None:
    """Wait until it is."""
    consumer.until(lambda lines: begun(lines) > begun(lines, "done"))


def has_begun(consumer: Worker, count: int) -> None:
    """Wait until it has called so many handlers."""
    consumer.until(lambda lines: begun(lines) >= count)


def go_on(producers: list[Worker], count: int = 20) -> None:
    """Wait until each has said so much more."""
    for producer in producers:
        seen = len(producer.lines)
        producer.until(lambda lines: len(lines) > seen + count, timeout=40)  # noqa: B023


def busiest(working: list[Worker]) -> Worker:
    """Taken from the list; whoever has work, as one may be given all there is."""
    until(lambda: any(begun(worker.lines) > 3 for worker in working), timeout=20, what="a consumer at work")
    chosen = max(working, key=lambda worker: begun(worker.lines))
    working.remove(chosen)
    return chosen


def supervise(stage: Stage, *, concurrency: int, most: int = 30, attempts: int = 3) -> int:
    """Start a consumer again whenever it dies; how often it did."""
    crashes = 0
    while crashes < most:
        consumer = stage.start("consume", concurrency=concurrency, max_attempts=attempts, work=0.0005)
        if settles(stage, consumer):
            break
        consumer.kill()
        stage.journal.fault("poison")
        crashes += 1
    return crashes


def settles(stage: Stage, consumer: Worker) -> bool:
    """False when it dies before everything is settled."""
    while consumer.alive:
        stage.until_settled(timeout=0.1)
        if not stage.outstanding():
            return True
    return False


def terminate(stage: Stage, worker: Worker, seconds: float) -> dict[str, Any]:
    """SIGTERM, so many seconds after it has begun to work; the report of its bus."""
    has_begun(worker, 4)
    time.sleep(seconds)
    stage.journal.fault("SIGTERM consumer")
    worker.terminate()
    assert worker.wait(timeout=20) == 0, worker.errors
    (report,) = [line.removeprefix("closed ") for line in worker.lines if line.startswith("closed ")]
    return dict(json.loads(report))


def check_terminated(stage: Stage, grace: float, reports: list[dict[str, Any]]) -> None:
    """Row 30, of consumers that had so many seconds to drain."""
    story, released = stage.story(), sum(report["released"] for report in reports)
    tell(30, f"SIGTERM under load, {grace:g} s to drain", story, f"released: {released}")
    story.check()
    assert not story.duplicated
    assert not story.groups["g"].dead
    assert max(attempt for seen in story.groups["g"].attempts.values() for attempt in seen) == 1
    if grace >= 1:
        # What a fetch still brings when all handlers have ended goes back, unseen by any of them.
        assert all(report["drained"] or report["released"] for report in reports)
        assert not any(report["interrupted"] or report["abandoned"] for report in reports)
        assert story.redelivered == 0, "a handler was interrupted, or its ack was lost"
    else:
        assert released > 0


# Of a journal


def lost_attempts(journal: Path) -> list[tuple[str, int]]:
    """Deliveries that count more attempts than handlers had begun before."""
    before: Counter[str] = Counter()
    found = []
    for event in map(json.loads, journal.read_text().splitlines()):
        if event["what"] == "delivered":
            if event["attempt"] > 1 + before[event["id"]]:
                found.append((event["id"], event["attempt"]))
            before[event["id"]] += 1
    return found


def moments(journal: Path, what: str) -> dict[str, list[float]]:
    """When it happened to each message."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for event in map(json.loads, journal.read_text().splitlines()):
        if event["what"] == what:
            found[event["id"]].append(event["at"])
    return found


def retry_gaps(journal: Path) -> list[float]:
    """Seconds between the first two deliveries of each message."""
    return [at[1] - at[0] for at in moments(journal, "delivered").values() if len(at) > 1]


def times_from(journal: Path, prefix: str) -> list[float]:
    """Seconds from publish to delivery of messages whose ids begin so."""
    first = moments(journal, "attempted")
    return [at[0] - first[id][0] for id, at in moments(journal, "delivered").items() if id.startswith(prefix)]


def early(waited: list[float], wanted: float) -> list[float]:
    return [seconds for seconds in waited if seconds < wanted - 0.01]
