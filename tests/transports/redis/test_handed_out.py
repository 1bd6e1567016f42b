"""Messages that are handed out as they are stored, without being asked for."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack

import pytest

from neuralcore.messaging.transport import Delivery, Demand, GroupRef
from tests.servers.missing import ALL_REDIS_VERSIONS
from tests.transports.redis.clients import (
    Member,
    ack,
    counted,
    envelope,
    eventually,
    ids,
    new_prefix,
    opened,
    pair,
    publish,
)

each_version = pytest.mark.parametrize("redis_server", ALL_REDIS_VERSIONS, indirect=True)


def late(transport, chance: random.Random) -> asyncio.Task[None]:
    """Answers to fetches and news take times of their own to arrive; each kind stays in order."""
    fetch, heard = transport.client.fetch, transport._bells._heard
    news: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    async def late_fetch(*parts):
        found = await fetch(*parts)
        await asyncio.sleep(chance.choice([0, 0, 0.001, 0.005]))
        return found

    async def tell():
        while True:
            told = await news.get()
            await asyncio.sleep(chance.choice([0, 0, 0, 0.001, 0.003]))
            heard(*told)

    transport.client.fetch = late_fetch
    transport._bells._heard = lambda *told: news.put_nowait(told)
    return asyncio.ensure_future(tell())


@each_version
async def test_who_waits_is_handed_what_is_stored_and_asks_for_nothing(redis_server):
    async with pair(redis_server) as (publisher, consumer):
        member = await Member.of(consumer)
        waiting = asyncio.ensure_future(member.fetch())
        counts = counted(consumer)
        await member.waits()
        counts["fetched"] = 0
        for number in range(10):
            await publish(publisher, envelope(str(number)))
            got = await waiting
            assert ids(got) == [str(number)]
            await ack(consumer, *got)
            waiting = asyncio.ensure_future(member.fetch())
        waiting.cancel()
        assert counts == {"fetched": 0, "handed": 10}


@each_version
@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("seed", range(3))
async def test_the_order_of_a_channel_holds_whatever_comes_first(redis_server, seed, cut):
    """Fetches race with what is handed out; and the connection that it comes on breaks. Nothing is lost either."""
    chance, count = random.Random(seed), 600
    async with pair(redis_server) as (publisher, consumer):
        member = await Member.of(consumer)
        telling = late(consumer, chance)

        async def publish_all() -> None:
            number = 0
            while number < count:
                some = chance.choice([1, 1, 1, 2, 5, 40])
                await publish(publisher, *(envelope(str(each)) for each in range(number, number + some)))
                number += some
                await asyncio.sleep(chance.choice([0, 0, 0.001, 0.005]))

        async def cut_off() -> None:
            while cut:
                await asyncio.sleep(chance.uniform(0.02, 0.15))
                id = (await consumer._bells._pipe.call("CLIENT", "ID")) if consumer.listening else None
                if id is not None:
                    await publisher.client.call("x", "CLIENT", "KILL", "ID", id)

        publishing, cutting = asyncio.ensure_future(publish_all()), asyncio.ensure_future(cut_off())
        seen: list[str] = []
        while len(seen) < count:
            got = await member.fetch(chance.choice([1, 3, 20, 100, 500]))
            assert got, f"after {seen[-3:]}"
            seen += ids(got)
            await ack(consumer, *got)
            await asyncio.sleep(chance.choice([0, 0, 0, 0, 0, 0, 0, 0, 0, 0.005, 0.15]))
        await publishing
        cutting.cancel()
        telling.cancel()
        seen += ids(await member.fetch(timeout=0.1))
        assert seen == [str(number) for number in range(len(seen))]


async def test_a_full_member_keeps_nothing_from_the_others(redis_server):
    """It waits for what is more urgent; what is not is for whoever comes behind it."""
    async with pair(redis_server, poll=60) as (publisher, consumer):
        full, other = await Member.of(consumer), await Member.of(publisher)
        assert await full.consumer.fetch({1: Demand(400, more_urgent_than=50)}, 0.1) == []
        waiting = asyncio.ensure_future(other.fetch(100, timeout=10))
        await other.waits()
        await publish(publisher, envelope("1"))
        assert ids(await waiting) == ["1"]


async def test_a_group_that_was_removed_is_not_made_anew(redis_server):
    async with pair(redis_server) as (publisher, consumer):
        member = await Member.of(consumer)
        assert await member.fetch(timeout=0.1) == []
        await publisher.remove(GroupRef("g"))
        await publish(publisher, envelope("1"))
        (found,) = (await publisher.stats()).values()
        assert dict(found.lag) == {}


async def test_who_has_little_room_gets_its_share(redis_server):
    async with pair(redis_server) as (publisher, consumer):
        small, large = await Member.of(publisher), await Member.of(consumer)
        got: dict[str, list[Delivery]] = {"small": [], "large": []}

        async def drain(name: str, member: Member, limit: int) -> None:
            while True:
                found = await member.fetch(limit)
                got[name] += found
                await ack(member.transport, *found)

        draining = [asyncio.ensure_future(drain(*each)) for each in (("small", small, 2), ("large", large, 400))]
        for number in range(40):
            await publish(publisher, envelope(str(number)))
            await asyncio.sleep(0.002)
        await eventually(lambda: sum(map(len, got.values())) == 40, "all of them")
        for each in draining:
            each.cancel()
        assert len(got["small"]) >= 5
        assert len(got["large"]) >= 5


async def test_of_very_many_groups_some_are_only_told(redis_server):
    """Or one message would hold up everybody else on the server."""
    async with pair(redis_server, poll=60) as (publisher, consumer):
        members = [await Member.of(consumer, f"g{number}") for number in range(120)]
        for member in members:
            assert await member.fetch(timeout=0) == []
        counts = counted(consumer)
        waiting = [asyncio.ensure_future(member.fetch()) for member in members]
        await publish(publisher, envelope("1"))
        assert [ids(got) for got in await asyncio.gather(*waiting)] == [["1"]] * 120
        assert counts == {"fetched": 20, "handed": 100}


@each_version
async def test_members_take_turns_whatever_the_rhythm(redis_server):
    """Each could take all there is: where time decides, steps of 33 always meet the same one of three."""
    prefix, counts = new_prefix(), [0, 0, 0]
    async with AsyncExitStack() as stack:
        publisher, *others = [
            await stack.enter_async_context(opened(redis_server.url(), prefix=prefix, lease=5)) for _ in range(4)
        ]
        await publisher.client.ensure("orders")
        members = [await Member.of(each) for each in others]

        async def consume(number: int) -> None:
            while True:
                got = await members[number].fetch()
                await ack(others[number], *got)
                counts[number] += len(got)

        consuming = [asyncio.ensure_future(consume(number)) for number in range(3)]
        for member in members:
            await member.waits()
        began = int(time.time() * 1000)
        for number in range(30):
            publisher.client.clock = began + 32 * number
            await publish(publisher, envelope(str(number)))
            await eventually(lambda number=number: sum(counts) == number + 1, "it")
        for each in consuming:
            each.cancel()
    assert min(counts) > 5, counts
