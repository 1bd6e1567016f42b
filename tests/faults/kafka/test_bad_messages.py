"""Rows 27 and 28: too large, undecodable: refused before it is stored, or set aside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from neuralcore import Message
from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.dead_letters import DeadLetters
from neuralcore.messaging.errors import PayloadTooLarge, PublishError
from neuralcore_transports.kafka import KafkaTransport
from tests.faults.foreign import FOREIGN, PAYLOADS, rss
from tests.faults.kafka.stage import KafkaStage
from tests.faults.plan import figures, some, tell

Record = tuple[bytes | None, list[tuple[str, bytes | None]]]
"""Value and headers."""
OWN: dict[str, Record] = {
    "a header without a value": (b"1", [("ce_id", b"k-1"), ("ce_x", None)]),
    "an id without a value": (b"1", [("ce_id", None)]),
    "two ids": (b"1", [("ce_id", b"k-2"), ("ce_id", b"k-3")]),
    "a tombstone": (None, [("ce_id", b"k-4"), ("content-type", b"application/json")]),
    "nothing at all": (None, []),
}


def record(fields: Mapping[bytes, bytes]) -> Record:
    """Names of headers are text, as the client library wants them."""
    headers: list[tuple[str, bytes | None]] = [
        (name.decode("latin-1"), value) for name, value in fields.items() if name != b"data"
    ]
    return fields.get(b"data"), headers


RECORDS = {**{name: record(fields) for name, fields in FOREIGN.items()}, **OWN}


async def passed_by(stage: KafkaStage, records: list[Record]) -> tuple[list[str], dict[str, str], int]:
    """Good messages and these, in turn: ids of good ones that were handled, reasons of dead letters, how many of these
    were handled."""
    from confluent_kafka import Producer

    got: list[str] = []
    others = 0
    done = asyncio.Event()

    async def handle(message: Message) -> None:
        nonlocal others
        if str(message.id).startswith("good"):
            got.append(message.id)
        else:
            others += 1
        if len(got) > len(records):
            done.set()

    made = KafkaTransport.from_url(stage.url)
    stranger = Producer(stage.kafka.config())
    async with MessageBus(made) as bus:
        await bus.publish("work", 1, message_id="good-first")
        bus.subscribe("work", handle, group="g", start="beginning")
        for number, (value, headers) in enumerate(records):
            stranger.produce(stage.topic(), value, partition=number % 4, headers=headers)
            await asyncio.to_thread(stranger.flush)
            await bus.publish("work", number, message_id=f"good-{number}")
        await asyncio.wait_for(done.wait(), 20)
        letters = await buried(made, lambda: len(records) - others)
        counts = dict(bus.metrics().transport)
    assert counts.get("fetches_failed", 0) < 3, counts
    return got, letters, others


async def buried(made: KafkaTransport, wanted: Callable[[], int]) -> dict[str, str]:
    found: dict[str, str] = {}
    for _ in range(100):
        found = {str(letter.id): letter.reason async for letter in DeadLetters(made, "work")}
        if len(found) >= wanted():
            break
        await asyncio.sleep(0.05)
    return found


def judged(fault: str, row: int, count: int, got: list[str], letters: Mapping[str, str], others: int) -> None:
    counts = {
        "attempted": 2 * count + 1,
        "acked": 2 * count + 1,
        "delivered": len(got) + others,
        "settled": len(got) + others,
    }
    lost = count + 1 - len(set(got)) + max(0, count - others - len(letters))
    note = f"dead={len(letters)} passed={others}"
    tell(row, fault, figures("bad record", count, **counts, lost=lost, duplicated=len(got) - len(set(got)), note=note))


async def test_payloads_that_cannot_be_decoded_are_dead_lettered(stage: KafkaStage) -> None:
    before = rss()
    records = [
        record({b"ce_id": name.encode(), b"content-type": kind.encode(), b"data": body})
        for name, (kind, body) in PAYLOADS.items()
    ]
    got, letters, others = await passed_by(stage, records)
    judged("undecodable payloads", 27, len(records), got, letters, others)
    assert len(got) == len(records) + 1
    assert letters == dict.fromkeys(PAYLOADS, "undecodable")
    assert rss() - before < 64 << 20


async def test_records_that_somebody_else_has_written_stop_nobody(stage: KafkaStage) -> None:
    got, letters, others = await passed_by(stage, list(RECORDS.values()))
    judged("undecodable headers", 28, len(RECORDS), got, letters, others)
    assert len(got) == len(set(got)) == len(RECORDS) + 1
    assert len(letters) + others == len(RECORDS)


@pytest.mark.parametrize("name", some(2, list(RECORDS)))
async def test_one_record_that_somebody_else_has_written(stage: KafkaStage, name: str) -> None:
    got, letters, others = await passed_by(stage, [RECORDS[name]])
    assert len(got) == 2
    assert len(letters) + others == 1


async def test_what_is_too_large_is_refused_before_it_is_stored(stage: KafkaStage) -> None:
    async with MessageBus(KafkaTransport.from_url(stage.url)) as bus:
        await bus.publish("work", 1, message_id="small")
        with pytest.raises(PayloadTooLarge):
            await bus.publish("work", "x" * (17 << 20))
        results = await asyncio.gather(
            bus.publish("work", 2, headers={"h": "x" * (21 << 20)}, message_id="wide"),
            bus.publish("work", 3, message_id="neighbour"),
            return_exceptions=True,
        )
        largest = await bus.publish("work", "x" * ((16 << 20) - 2), message_id="largest")
    stored = set(stage.stored())
    counts = {"attempted": 5, "acked": 3, "lost": 3 - len(stored), "phantom": max(0, len(stored) - 3)}
    tell(27, "oversized payloads", figures("too large", 2, **counts, note=f"stored={len(stored)}"))
    assert isinstance(results[0], PublishError)
    assert (results[1], largest) == ("neighbour", "largest")
    assert stored == {"small", "neighbour", "largest"}
