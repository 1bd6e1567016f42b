"""Rows 27 and 28: too large, too many headers, undecodable: refused before it is stored, or set aside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from neuralcore import Message
from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.dead_letters import DeadLetters
from neuralcore.messaging.errors import PayloadTooLarge, PublishError
from neuralcore_transports.redis import RedisTransport
from tests.faults.foreign import FOREIGN, PAYLOADS, rss
from tests.faults.plan import figures, tell
from tests.servers.redis import RedisServer

STREAM = "nc:{work}:p:50"


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis(appendfsync="no")


def transport(server: RedisServer) -> RedisTransport:
    return RedisTransport.from_url(f"{server.url()}/0?lease=1&timeout=2")


async def passed_by(server: RedisServer, entries: list[dict[bytes, bytes]]) -> tuple[list[str], dict[str, str], int]:
    """Good messages and these, in turn: ids of good ones that were handled, reasons of dead letters, how many of these
    were handled."""
    got: list[str] = []
    others = 0
    done = asyncio.Event()

    async def handle(message: Message) -> None:
        nonlocal others
        if message.id.startswith("good"):
            got.append(message.id)
        else:
            others += 1
        if len(got) > len(entries):
            done.set()

    made = transport(server)
    async with MessageBus(made) as bus:
        await bus.publish("work", 1, message_id="good-first")
        with server.client(decode_responses=False) as client:
            for number, fields in enumerate(entries):
                client.xadd(STREAM, fields)
                await bus.publish("work", number, message_id=f"good-{number}")
        bus.subscribe("work", handle, group="g")
        await asyncio.wait_for(done.wait(), 20)
        letters = await buried(made, len(entries) - others)
        counts = dict(bus.metrics().transport)
    assert counts.get("fetches_failed", 0) < 3, counts
    return got, letters, others


async def buried(made: RedisTransport, count: int) -> dict[str, str]:
    found: dict[str, str] = {}
    for _ in range(100):
        found = {str(letter.id): letter.reason async for letter in DeadLetters(made, "work")}
        if len(found) >= count:
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
    tell(row, fault, figures("bad entry", count, **counts, lost=lost, duplicated=len(got) - len(set(got)), note=note))


async def test_payloads_that_cannot_be_decoded_are_dead_lettered(server: RedisServer) -> None:
    before = rss()
    entries = [
        {b"ce_id": name.encode(), b"content-type": kind.encode(), b"data": body}
        for name, (kind, body) in PAYLOADS.items()
    ]
    got, letters, others = await passed_by(server, entries)
    judged("undecodable payloads", 27, len(entries), got, letters, others)
    assert len(got) == len(entries) + 1
    assert letters == dict.fromkeys(PAYLOADS, "undecodable")
    assert rss() - before < 64 << 20


async def test_entries_that_somebody_else_has_written_stop_nobody(server: RedisServer) -> None:
    got, letters, others = await passed_by(server, list(FOREIGN.values()))
    judged("undecodable headers", 28, len(FOREIGN), got, letters, others)
    assert len(got) == len(set(got)) == len(FOREIGN) + 1
    assert len(letters) + others == len(FOREIGN)


@pytest.mark.parametrize("name", FOREIGN)
async def test_one_entry_that_somebody_else_has_written(server: RedisServer, name: str) -> None:
    got, letters, others = await passed_by(server, [FOREIGN[name]])
    assert len(got) == 2
    assert len(letters) + others == 1


async def test_what_is_too_large_is_refused_before_it_is_stored(server: RedisServer) -> None:
    made = transport(server)
    async with MessageBus(made) as bus:
        bus.create_channel("work", max_payload=1000)
        await bus.publish("work", b"x" * 900)
        for size in (1001, 10_000, 1 << 20):
            with pytest.raises(PayloadTooLarge):
                await bus.publish("work", b"x" * size)
        stored = (await made.stats())["work"].stored
    counts = {"attempted": 4, "acked": 1, "lost": max(0, 1 - stored), "phantom": max(0, stored - 1)}
    tell(27, "oversized payloads", figures("too large", 3, **counts, note=f"stored={stored}"))
    assert stored == 1


async def test_too_many_headers_are_refused_and_harm_no_neighbour(server: RedisServer) -> None:
    made = transport(server)
    async with MessageBus(made) as bus:
        results = await asyncio.gather(
            *(bus.publish("work", n, headers={f"h{i}": "x" for i in range(n)}) for n in (1, 3000, 3500, 50_000, 2)),
            return_exceptions=True,
        )
        stored = (await made.stats())["work"].stored
    refused = sum(isinstance(each, PublishError) for each in results)
    counts = {"attempted": 5, "acked": 5 - refused, "phantom": max(0, stored - 3)}
    tell(27, "too many headers", figures("too many", 2, **counts, note=f"stored={stored}"))
    assert [type(each) for each in results] == [str, str, PublishError, PublishError, str], results
    assert stored == 3
