"""The end of a run under load: everybody is asked, and what the journal and the brokers say is compared."""

from __future__ import annotations

from tests.faults.acts import begun
from tests.faults.kafka.stage import KafkaStage
from tests.faults.plan import tell
from tests.faults.processes import Worker
from tests.faults.stage import reply

__all__ = ["judge", "load"]

KEPT = 1_000_000


def load(stage: KafkaStage, *, pause: float = 0.01, work: float = 0.005) -> tuple[list[Worker], list[Worker]]:
    """Two producers and two consumers; all messages are kept where they were stored, to be counted."""
    consumers = stage.consumers(2, concurrency=4, work=work, keep=KEPT)
    return [stage.producer(at_once=4, keys=20, pause=pause, keep=KEPT) for _ in range(2)], consumers


def judge(stage: KafkaStage, row: int, fault: str, workers: list[Worker], *, note: str = "") -> None:
    """The workers are told to stop; the last of them are consumers."""
    producers = [worker for worker in workers if begun(worker.lines, "acked")]
    states = [reply(producer, timeout=40) for producer in producers]
    for producer in producers:
        reply(producer, "stop", timeout=40)
    stage.until_settled()
    states += [reply(worker) for worker in workers if worker not in producers]
    story, stored = stage.story(), stage.stored()
    repeats = sum(state["repeats"] for state in states)
    told = sum(state["counts"].get("data_lost", 0) for state in states)
    lost = sum(state["lease lost"] for state in states)
    again = sum(entries - 1 for entries in stored.values())
    notes = [f"published again by applications: {repeats}", f"stored twice: {again}", f"leases lost: {lost}"]
    tell(row, fault, story, ", ".join([note, *notes] if note else notes))
    story.check()
    assert set(story.acked) <= set(stored)
    assert again <= repeats, "the client library never stores one twice"
    assert told == 0, "nothing was lost"
    assert stage.debris(kept=True) == []
