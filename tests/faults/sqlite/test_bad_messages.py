"""Rows 27 and 28: too large, too deep, undecodable: refused before they are stored, or set aside; the others flow."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Mapping
from pathlib import Path

import pytest

from neuralcore import Message
from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.dead_letters import DeadLetters
from neuralcore.messaging.errors import PayloadTooLarge
from neuralcore.messaging.transport import Envelope
from neuralcore_transports.sqlite import SqliteTransport
from tests.faults.plan import figures, tell
from tests.faults.report import Figures
from tests.faults.sqlite.files import Maker

BAD = {
    "no JSON": ("application/json", b"{"),
    "deep JSON": ("application/json", b"[" * 200_000 + b"]" * 200_000),
    "a long number": ("application/json", b"9" * 400_000),
    "no UTF-8": ("application/json", b'"\xff"'),
    "no MessagePack": ("application/msgpack", b"\xc1"),
    "a false length": ("application/msgpack", b"\xdd\xff\xff\xff\xff"),
    "a false length of bytes": ("application/msgpack", b"\xc6\xff\xff\xff\xff"),
    "deep MessagePack": ("application/msgpack", b"\x91" * 200_000 + b"\xc0"),
    "an array of a false shape": ("application/x-neuralcore-ndarray", b"\x93NUMPY" + b"\xff" * 40),
    "an unknown type": ("application/x-nobody-knows", b"?"),
    "nothing": ("application/json", b""),
}


def rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def test_what_cannot_be_decoded_is_dead_lettered_and_the_rest_flows(tmp_path: Path) -> None:
    path, got = tmp_path / "bus.db", []
    bad = [Envelope(id=name, channel="work", body=body, content_type=kind) for name, (kind, body) in BAD.items()]
    good = [Envelope(id=f"good {number}", channel="work", body=b"1") for number in range(20)]
    maker = Maker(path)
    maker.publish(*(each for pair in zip(bad, good, strict=False) for each in pair), *good[len(bad) :])
    maker.close(checkpoint=False)
    before, done = rss(), asyncio.Event()

    async def handle(payload: int, message: Message) -> None:
        got.append(message.id)
        if len(got) >= len(good):
            done.set()

    transport = SqliteTransport.from_url(f"sqlite://{path}?lease=1")
    async with MessageBus(transport) as bus:
        bus.subscribe("work", handle, group="g")
        await asyncio.wait_for(done.wait(), 20)
        letters = await buried(transport, len(bad))
    note = f"dead={len(letters)} memory grew by {max(0, rss() - before) >> 20} MB"
    tell(27, "undecodable payloads", judged(bad + good, got, letters, note=note))
    assert sorted(got) == sorted(each.id for each in good)
    assert letters == dict.fromkeys(BAD, "undecodable")
    assert rss() - before < 64 << 20


def judged(sent: list[Envelope], got: list[str], letters: Mapping[str, str], *, note: str) -> Figures:
    ids = {each.id for each in sent}
    return figures(
        "bad payload",
        len(BAD),
        attempted=len(ids),
        acked=len(ids),
        delivered=len(got),
        settled=len(got),
        lost=len(ids - set(got) - set(letters)),
        duplicated=len(got) - len(set(got)),
        phantom=len((set(got) | set(letters)) - ids),
        note=note,
    )


async def buried(transport: SqliteTransport, count: int) -> dict[str, str]:
    found: dict[str, str] = {}
    for _ in range(200):
        found = {letter.id: letter.reason async for letter in DeadLetters(transport, "work")}
        if len(found) >= count:
            break
        await asyncio.sleep(0.05)
    return found


async def test_what_is_too_large_is_refused_before_it_is_stored(tmp_path: Path) -> None:
    transport = SqliteTransport.from_url(f"sqlite://{tmp_path / 'bus.db'}")
    async with MessageBus(transport) as bus:
        bus.create_channel("work", max_payload=1000)
        await bus.publish("work", b"x" * 900)
        with pytest.raises(PayloadTooLarge) as refused:
            await bus.publish("work", b"x" * 2000)
        for size in (1001, 10_000, 1 << 20):
            with pytest.raises(PayloadTooLarge):
                await bus.publish("work", b"x" * size)
        stats = (await transport.stats())["work"]
    counts = {"attempted": 5, "acked": 1, "lost": max(0, 1 - stats.stored), "phantom": max(0, stats.stored - 1)}
    tell(27, "oversized payloads", figures("too large", 4, **counts, note=f"stored={stats.stored}"))
    assert stats.stored == 1
    assert refused.value.limit == 1000


async def test_the_transports_own_limit_holds_where_the_channel_has_none(tmp_path: Path, monkeypatch) -> None:
    import dataclasses

    small = dataclasses.replace(SqliteTransport.capabilities, max_payload=5000)
    monkeypatch.setattr(SqliteTransport, "capabilities", small)
    async with MessageBus(SqliteTransport.from_url(f"sqlite://{tmp_path / 'bus.db'}")) as bus:
        with pytest.raises(PayloadTooLarge):
            await bus.publish("work", b"x" * 5001)
        assert await bus.publish("work", b"x" * 4000)
