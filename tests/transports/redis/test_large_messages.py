"""Large messages: read in slices, so that nobody is held up, and hiding none that could be delivered."""

from __future__ import annotations

import asyncio

import pytest

from neuralcore.messaging.transport import Outcome, Settlement
from tests.servers.missing import ALL_REDIS_VERSIONS
from tests.transports.redis.clients import Member, ack, counted, envelope, ids, pair, publish

each_version = pytest.mark.parametrize("redis_server", ALL_REDIS_VERSIONS, indirect=True)


async def slices(member: Member, count: int) -> tuple[list[int], list[str]]:
    """So many messages: how large the fetches were that they came with, and their ids."""
    sizes: list[int] = []
    seen: list[str] = []
    while len(seen) < count:
        got = await member.fetch(500)
        assert got, f"only {len(seen)} came"
        sizes.append(len(got))
        seen += ids(got)
    return sizes, seen


async def test_large_messages_are_told_of_and_fetched(redis_server):
    async with pair(redis_server) as (publisher, consumer):
        member = await Member.of(consumer)
        assert await member.fetch(timeout=0.1) == []
        counts = counted(consumer)
        await publish(publisher, envelope("1", body=b"x" * 300_000))
        (got,) = await member.fetch()
        assert len(got.envelope.body) == 300_000
        assert counts == {"fetched": 1, "handed": 0}


@each_version
async def test_a_large_backlog_comes_in_slices_and_in_order(redis_server):
    """One fetch holds up everybody else for as long as it reads."""
    count, body = 300, b'"%s"' % (b"x" * 10_000)
    async with pair(redis_server) as (publisher, consumer):
        member = await Member.of(consumer)
        urgent = [str(number) for number in range(count) if number % 3 == 0]
        others = [str(number) for number in range(count) if number % 3]
        for first in range(0, count, 50):
            numbers = range(first, first + 50)
            await publish(publisher, *(envelope(str(n), body=body, priority=0 if n % 3 == 0 else 100) for n in numbers))
        sizes, seen = await slices(member, count)
        assert seen == urgent + others
        assert 50 < max(sizes) < 150  # of 1 MB
        await ack(consumer, *(await member.fetch(timeout=0.1)))


@each_version
async def test_large_messages_that_are_delayed_hide_none_that_are_not(redis_server):
    """They are read, and not handed out, when they are stored."""
    body = b'"%s"' % (b"x" * 10_000)
    async with pair(redis_server) as (publisher, consumer):
        member = await Member.of(consumer)
        waiting = asyncio.ensure_future(member.fetch())
        await member.waits()
        delayed = [envelope(f"delayed {n}", body=body, delay_ns=400_000_000) for n in range(200)]
        await publish(publisher, *delayed, envelope("now", body=body))
        assert ids(await waiting) == ["now"]
        _, seen = await slices(member, len(delayed))
        assert seen == [each.id for each in delayed]


@each_version
async def test_what_came_back_comes_in_slices_too(redis_server):
    count, body = 60, b'"%s"' % (b"x" * 100_000)
    async with pair(redis_server) as (publisher, consumer):
        member = await Member.of(consumer)
        for first in range(0, count, 10):
            await publish(publisher, *(envelope(str(n), body=body) for n in range(first, first + 10)))
        failed = (await member.fetch(1))[0]
        await consumer.commit((), [Settlement(failed, Outcome.NACK)])
        sizes, seen = await slices(member, count)
        assert seen == [*(str(n) for n in range(1, count)), "0"]
        assert max(sizes) < 20  # of 1 MB
        await consumer.commit((), [Settlement(each, Outcome.RELEASE) for each in consumer.leases.all()])
        sizes, seen = await slices(member, count)
        assert seen == [*(str(n) for n in range(1, count)), "0"]
        assert max(sizes) < 20


@each_version
async def test_very_large_ones_are_read_one_by_one(redis_server):
    body = b'"%s"' % (b"x" * 2_000_000)
    async with pair(redis_server) as (publisher, consumer):
        for number in range(8):
            await publish(publisher, envelope(str(number), body=body))
        member = await Member.of(consumer)
        assert ids(await member.fetch(500)) == ["0"]


@each_version
async def test_large_ones_that_wait_for_their_key_hide_none_that_do_not(redis_server):
    body = b'"%s"' % (b"x" * 200_000)
    async with pair(redis_server, poll=30) as (publisher, consumer):
        member = await Member.of(consumer)
        holder = asyncio.ensure_future(member.fetch())
        await member.waits()
        await publish(publisher, envelope("holder", key="k"))
        assert ids(await holder) == ["holder"]
        waiting = asyncio.ensure_future(member.fetch())
        await asyncio.sleep(0.05)
        await publish(publisher, *(envelope(f"parked {n}", body=body, key="k") for n in range(12)), envelope("free"))
        assert ids(await waiting) == ["free"]
