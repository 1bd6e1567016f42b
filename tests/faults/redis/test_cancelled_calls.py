"""Row 23: commit, fetch, update and close, cancelled at each of their await points."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from neuralcore.messaging.transport import Demand, Group, Interest
from tests.faults.cancellation import every_point
from tests.faults.clients import counted, points
from tests.faults.plan import figures, tell, times
from tests.faults.redis.clients import Runtime, message, opened, reader, settle
from tests.servers.redis import RedisServer

ROUNDS = times(5, 100)
QUERY = "lease=2&timeout=2"


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis(appendfsync="no")


def ids(server: RedisServer) -> list[str]:
    with server.client() as client:
        return [fields["ce_id"] for _, fields in client.xrange("nc:{work}:p:50")]


def connections(server: RedisServer) -> int:
    """But for the one that asks."""
    with server.client() as client:
        return len(client.client_list()) - 1


async def test_a_commit_happens_as_a_whole_or_not_at_all(server: RedisServer) -> None:
    numbers, done, attempted, count = iter(range(10**9)), set[str](), set[str](), 0
    for _ in range(ROUNDS):
        async with opened(server, QUERY) as (made, _):  # a new one each time: it has to connect first

            async def commit() -> None:
                pair = [message(next(numbers)), message(next(numbers))]
                attempted.update(each.id for each in pair)
                await made.commit(pair)
                done.update(each.id for each in pair)

            count += len(await points(commit)) - 1
            count += len(await points(commit)) - 1
    await quiet(lambda: connections(server) == 0)
    found = ids(server)
    halves = [id for id in found if f"m-{int(id[2:]) ^ 1}" not in found]
    left = connections(server)
    note = f"halves={len(halves)} connections left={left}"
    tell(23, "cancelled commit", figures("cancellation", count, **counted(attempted, done, found), note=note))
    assert done <= set(found) <= attempted
    assert halves == []
    assert len(found) == len(set(found))
    assert count >= ROUNDS
    assert left == 0


async def test_a_cancelled_fetch_loses_no_delivery(server: RedisServer) -> None:
    total, count = 20 * ROUNDS, 0
    got: list[str] = []
    async with opened(server, QUERY) as (made, _), reader(made) as consumer:
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
    published = [f"m-{number}" for number in range(total)]
    tell(23, "cancelled fetch", figures("cancellation", count, **counted(published, published, got), settled=len(got)))
    assert sorted(got) == sorted(published)
    assert ids(server) == []


async def test_an_update_is_made_or_not(server: RedisServer) -> None:
    count, got = 0, 0
    async with opened(server, QUERY) as (made, _):
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


async def test_a_cancelled_open_leaves_no_connection(server: RedisServer) -> None:
    from neuralcore_transports.redis import RedisTransport

    threads, count = threading.active_count(), 0

    async def start() -> None:
        made = RedisTransport.from_url(f"{server.url()}/0?{QUERY}")
        try:
            await made.open(Runtime())
        finally:
            await made.close()

    for _ in range(times(1, 20)):
        count += len(await points(start)) - 1
    await quiet(lambda: connections(server) == 0 and threading.active_count() <= threads + 1)
    left = f"connections left={connections(server)} threads left={max(0, threading.active_count() - threads - 1)}"
    tell(23, "cancelled open of the transport", figures("cancellation", count, note=left))
    assert connections(server) == 0
    assert threading.active_count() <= threads + 1  # the loop's own executor


async def test_a_cancelled_close_leaks_nothing_and_can_be_repeated(server: RedisServer) -> None:
    threads, count = threading.active_count(), 0
    for number in range(ROUNDS):
        async with opened(server, QUERY) as (made, _), reader(made) as consumer:
            await made.commit([message(number)])
            await consumer.fetch({1: Demand(1)}, 1.0)
            count += len(await points(made.close)) - 1
            await asyncio.wait_for(made.close(), 5)
    await quiet(lambda: threading.active_count() <= threads + 1 and connections(server) == 0)
    left, published = ids(server), [f"m-{number}" for number in range(ROUNDS)]
    leaked = f"threads left={max(0, threading.active_count() - threads - 1)} connections left={connections(server)}"
    counts = counted(published, published, left)
    tell(23, "cancelled close of the transport", figures("cancellation", count, **counts, note=leaked))
    assert len(left) == ROUNDS
    assert connections(server) == 0
    assert threading.active_count() <= threads + 1  # the loop's own executor


async def quiet(true: Callable[[], bool]) -> None:
    """Threads and connections take a moment to end."""
    deadline = asyncio.get_running_loop().time() + 5
    while not true() and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.02)
