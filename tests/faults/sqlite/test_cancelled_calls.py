"""Row 23: commit, fetch, update and close, cancelled at each of their await points."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from neuralcore._core import Clock
from neuralcore.messaging.transport import Consumer, Demand, Envelope, Group, Interest, Outcome, Settlement
from neuralcore_transports.sqlite import SqliteTransport
from tests.faults.cancellation import every_point
from tests.faults.plan import figures, tell, times
from tests.faults.sqlite.survivors import survivors


class Runtime:
    """As little of a bus as a transport needs."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.bus_id = os.urandom(8).hex()
        self.counts: dict[str, int] = {}

    @property
    def executor(self) -> Any:
        raise NotImplementedError

    def count(self, name: str, amount: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + amount

    def lost(self, deliveries: Sequence[object]) -> None:
        self.count("lost", len(deliveries))

    def gauge(self, name: str, value: float) -> None: ...
    def revoking(self, deliveries: Sequence[object], deadline_ns: int) -> None: ...
    def reconnected(self) -> None: ...
    def channels_changed(self) -> None: ...
    def data_lost(self, channel: str, detail: str) -> None:
        self.count("data lost")


@asynccontextmanager
async def transport(path: Path) -> AsyncIterator[SqliteTransport]:
    made = SqliteTransport.from_url(f"sqlite://{path}?durability=normal&lease=2")
    await made.open(Runtime())
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def reader(made: SqliteTransport) -> AsyncIterator[Consumer]:
    consumer = await made.consume(Group("g"))
    await consumer.update([Interest(id=1, pattern="work")])
    yield consumer
    await consumer.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bus.db"


def message(number: object) -> Envelope:
    return Envelope(id=f"m-{number}", channel="work", body=b"1")


async def points(start: Callable[[], Awaitable[Any]]) -> list[bool]:
    """Whether it returned, for each point at which it was cancelled; the last one was not."""
    found = []
    async for _, outcome in every_point(start):
        assert outcome.error is None, outcome.error
        found.append(outcome.done)
    return found


ROUNDS = times(5, 100)


async def test_a_commit_happens_as_a_whole_or_not_at_all(path: Path) -> None:
    numbers, done = iter(range(10**9)), set()
    attempted: set[str] = set()
    count = 0
    async with transport(path) as made:
        for _ in range(ROUNDS):

            async def commit() -> None:
                pair = [message(next(numbers)), message(next(numbers))]
                attempted.update(each.id for each in pair)
                await made.commit(pair)
                done.update(each.id for each in pair)

            count += len(await points(commit)) - 1
    ids = survivors(path).ids
    halves = [id for id in ids if f"m-{int(id[2:]) ^ 1}" not in ids]
    counts = counted(attempted, done, ids)
    tell(23, "cancelled commit", figures("cancellation", count, **counts, note=f"halves={len(halves)}"))
    assert done <= set(ids) <= attempted
    assert halves == []
    assert len(ids) == len(set(ids))
    assert count >= ROUNDS


def counted(attempted: Collection[str], acked: Collection[str], delivered: Collection[str]) -> dict[str, int]:
    return {
        "attempted": len(attempted),
        "acked": len(acked),
        "delivered": len(set(delivered)),
        "lost": len(set(acked) - set(delivered)),
        "duplicated": len(delivered) - len(set(delivered)),
        "phantom": len(set(delivered) - set(attempted)),
    }


async def test_a_cancelled_fetch_loses_no_delivery(path: Path) -> None:
    total, count = 20 * ROUNDS, 0
    got: list[str] = []
    async with transport(path) as made, reader(made) as consumer:
        await made.commit([message(number) for number in range(total)])
        while len(got) < total:

            async def fetch() -> None:
                deliveries = await consumer.fetch({1: Demand(3)}, 1.0)
                got.extend(each.envelope.id for each in deliveries)
                await made.commit([], [Settlement(each, Outcome.ACK) for each in deliveries])

            async for _, outcome in every_point(lambda: asyncio.wait_for(_shielded(fetch), 10)):
                count += outcome.reached
            cancelled = asyncio.ensure_future(consumer.fetch({1: Demand(2)}, 1.0))
            for _ in range(len(got) % 7):
                await asyncio.sleep(0)
            cancelled.cancel()
            count += 1
            for each in await asyncio.gather(cancelled, return_exceptions=True):
                if not isinstance(each, BaseException):
                    got.extend(d.envelope.id for d in each)
                    await made.commit([], [Settlement(d, Outcome.ACK) for d in each])
    published = [f"m-{number}" for number in range(total)]
    tell(23, "cancelled fetch", figures("cancellation", count, **counted(published, published, got), settled=len(got)))
    assert sorted(got) == sorted(published)
    assert survivors(path).ids == []


async def _shielded(work: Callable[[], Awaitable[None]]) -> None:
    await work()


async def test_an_update_is_made_or_not(path: Path) -> None:
    count, got = 0, 0
    async with transport(path) as made:
        await made.commit([message(0)])
        for number in range(ROUNDS):
            consumer = await made.consume(Group(f"group{number}"))
            interests = [Interest(id=1, pattern="work", start="beginning")]
            count += len(await points(lambda: consumer.update(interests))) - 1  # noqa: B023
            got += len(await consumer.fetch({1: Demand(5)}, 1.0))
            count += len(await points(consumer.close)) - 1
    counts = {"attempted": ROUNDS, "acked": ROUNDS, "delivered": got, "lost": max(0, ROUNDS - got)}
    note = "one message, for each of so many groups"
    tell(23, "cancelled update and close of a consumer", figures("cancellation", count, **counts, note=note))
    assert got == ROUNDS


async def test_a_cancelled_close_leaks_nothing_and_can_be_repeated(path: Path) -> None:
    threads, files, count = threading.active_count(), open_files(path), 0
    for number in range(ROUNDS):
        made = SqliteTransport.from_url(f"sqlite://{path}?durability=normal&lease=2")
        await made.open(Runtime())
        async with reader(made) as consumer:
            await made.commit([message(number)])
            await consumer.fetch({1: Demand(1)}, 1.0)
        count += len(await points(made.close)) - 1
        await asyncio.wait_for(made.close(), 5)
    await settled(lambda: threading.active_count() <= threads + 1 and open_files(path) == files)
    left = survivors(path).ids
    published = [f"m-{number}" for number in range(ROUNDS)]
    leaked = f"threads left={max(0, threading.active_count() - threads - 1)} files left={open_files(path) - files}"
    counts = counted(published, published, left)
    tell(23, "cancelled close of the transport", figures("cancellation", count, **counts, note=leaked))
    assert len(left) == ROUNDS
    assert open_files(path) == files
    assert threading.active_count() <= threads + 1  # the loop's own executor


async def settled(true: Callable[[], bool]) -> None:
    """Threads take a moment to end."""
    deadline = asyncio.get_running_loop().time() + 5
    while not true() and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.02)


def open_files(path: Path) -> int:
    found = 0
    for fd in Path("/proc/self/fd").iterdir():
        try:
            found += str(path) in str(fd.readlink())
        except OSError:
            continue
    return found
