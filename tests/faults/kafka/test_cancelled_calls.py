"""Row 23: commit, fetch, update, open and close, cancelled at each of their await points."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from neuralcore.messaging.transport import Demand, Group, Interest
from neuralcore_transports.kafka import KafkaTransport
from tests.faults.cancellation import every_point
from tests.faults.clients import Runtime, counted, message, points, reader, settle
from tests.faults.kafka.stage import KafkaStage
from tests.faults.plan import figures, tell, times

ROUNDS = times(2, 40)


@asynccontextmanager
async def opened(stage: KafkaStage) -> AsyncIterator[KafkaTransport]:
    made = KafkaTransport.from_url(stage.url)
    await made.open(Runtime())
    try:
        yield made
    finally:
        await made.close()


def threads() -> int:
    """Ours and the client library's, which Python does not know; but not those of the loop's executor."""
    gc.collect()
    theirs = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            theirs.append(task.joinpath("comm").read_text())
    ours = [thread.name for thread in threading.enumerate()]
    return sum(name.startswith("rdk:") for name in theirs) + sum(name.startswith("kafka ") for name in ours)


async def steady() -> int:
    """How many there are without a transport: of the tests' own clients, once those of earlier tests have ended."""
    count = -1
    while count != (count := threads()):
        await asyncio.sleep(0.5)
    return count


async def test_a_commit_happens_as_a_whole_or_not_at_all(stage: KafkaStage) -> None:
    numbers, done, attempted, count = iter(range(10**9)), set[str](), set[str](), 0
    for _ in range(ROUNDS):
        async with opened(stage) as made:  # a new one each time: it has to connect first

            async def commit() -> None:
                pair = [message(next(numbers)), message(next(numbers))]
                attempted.update(each.id for each in pair)
                await made.commit(pair)
                done.update(each.id for each in pair)

            count += len(await points(commit)) - 1
            count += len(await points(commit)) - 1
    found = list(stage.stored().elements())
    halves = [id for id in found if f"m-{int(id[2:]) ^ 1}" not in found]
    note = f"halves={len(halves)}"
    tell(23, "cancelled commit", figures("cancellation", count, **counted(attempted, done, found), note=note))
    assert done <= set(found) <= attempted
    assert halves == []
    assert len(found) == len(set(found))
    assert count >= ROUNDS


async def test_a_cancelled_fetch_loses_no_delivery(stage: KafkaStage) -> None:
    total, count = 20 * ROUNDS, 0
    got: list[str] = []
    async with opened(stage) as made, reader(made) as consumer:
        await made.commit([message(number) for number in range(total)])
        while len(got) < total:

            async def fetch() -> None:
                deliveries = await consumer.fetch({1: Demand(3)}, 1.0)
                got.extend(each.envelope.id for each in deliveries)
                await asyncio.shield(settle(made, deliveries))

            async for _, outcome in every_point(lambda: asyncio.wait_for(fetch(), 10)):
                count += outcome.reached
            cancelled = asyncio.ensure_future(consumer.fetch({1: Demand(2)}, 1.0))
            for _ in range(len(got) % 7):
                await asyncio.sleep(0)
            cancelled.cancel()
            count += 1
            for each in await asyncio.gather(cancelled, return_exceptions=True):
                if not isinstance(each, BaseException):
                    got.extend(d.envelope.id for d in each)
                    await settle(made, each)
        left = await asyncio.to_thread(stage.debris)
    published = [f"m-{number}" for number in range(total)]
    tell(23, "cancelled fetch", figures("cancellation", count, **counted(published, published, got), settled=len(got)))
    assert sorted(got) == sorted(published)
    assert left == []


async def test_an_update_is_made_or_not(stage: KafkaStage) -> None:
    count, got = 0, 0
    async with opened(stage) as made:
        await made.commit([message(0)])
        for number in range(ROUNDS):
            consumer = await made.consume(Group(f"group{number}"))
            interests = [Interest(id=1, pattern="work", start="beginning")]
            count += len(await points(lambda: consumer.update(interests))) - 1  # noqa: B023
            got += len(await consumer.fetch({1: Demand(5)}, 5.0))
            count += len(await points(consumer.close)) - 1
    counts = {"attempted": ROUNDS, "acked": ROUNDS, "delivered": got, "lost": max(0, ROUNDS - got)}
    note = "one message, for each of so many groups"
    tell(23, "cancelled update and close of a consumer", figures("cancellation", count, **counts, note=note))
    assert got == ROUNDS


async def test_a_cancelled_open_leaves_nothing(stage: KafkaStage) -> None:
    before, count = await steady(), 0

    async def start() -> None:
        made = KafkaTransport.from_url(stage.url)
        try:
            await made.open(Runtime())
        finally:
            await made.close()

    for _ in range(times(3, 20)):
        count += len(await points(start)) - 1
    await quiet(lambda: threads() <= before)
    left = threads() - before
    tell(23, "cancelled open of the transport", figures("cancellation", count, note=f"threads left={left}"))
    assert left <= 0


async def test_a_cancelled_close_leaks_nothing_and_can_be_repeated(stage: KafkaStage) -> None:
    before, count = await steady(), 0
    for number in range(ROUNDS):
        async with opened(stage) as made, reader(made) as consumer:
            await made.commit([message(number)])
            await consumer.fetch({1: Demand(1)}, 5.0)
            count += len(await points(made.close)) - 1
            await asyncio.wait_for(made.close(), 10)
        del made, consumer
    await quiet(lambda: threads() <= before)
    left, published = list(stage.stored().elements()), [f"m-{number}" for number in range(ROUNDS)]
    leaked = threads() - before
    counts = counted(published, published, left)
    note = f"threads left={leaked}"
    tell(23, "cancelled close of the transport", figures("cancellation", count, **counts, note=note))
    assert len(left) == ROUNDS
    assert leaked <= 0


async def quiet(true: Callable[[], bool]) -> None:
    """Threads take a moment to end."""
    deadline = asyncio.get_running_loop().time() + 5
    while not true() and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.05)
