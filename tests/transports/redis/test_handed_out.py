"""Messages that are handed out as they are stored, without being asked for."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from neuralcore.messaging.transport import Delivery, Demand, GroupRef, Outcome, Settlement
from tests.servers.missing import ALL_REDIS_VERSIONS
from tests.transports.redis.clients import Member, ack, envelope, eventually, new_prefix, opened, publish

each_version = pytest.mark.parametrize("redis_server", ALL_REDIS_VERSIONS, indirect=True)


@asynccontextmanager
async def pair(server, *, lease=5, **options):
    """One to publish, and one to consume."""
    prefix = new_prefix()
    async with (
        opened(server.url(), prefix=prefix, lease=lease, **options) as one,
        opened(server.url(), prefix=prefix, lease=lease, **options) as other,
    ):
        await one.client.ensure("orders")
        yield one, other


def counted(transport):
    """How often it fetches, and how often it is handed something."""
    counts = {"fetched": 0, "handed": 0}
    fetch, given = transport.client.fetch, transport._news._given

    async def fetches(*parts):
        counts["fetched"] += 1
        return await fetch(*parts)

    def is_given(*parts):
        counts["handed"] += 1
        given(*parts)

    transport.client.fetch, transport._news._given = fetches, is_given
    return counts


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


def ids(deliveries: Sequence[Delivery]) -> list[str]:
    return [each.envelope.id for each in deliveries]


@each_version
async def test_who_waits_is_handed_what_is_stored_and_asks_for_nothing(redis_server):
    async with pair(redis_server) as (publisher, consumer):
        member = await Member.of(consumer)
        waiting = asyncio.ensure_future(member.fetch())
        counts = counted(consumer)
        await eventually(lambda: any(place.credit for place in member.consumer.places()), "it to wait")
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


@each_version
async def test_what_was_on_its_way_when_the_connection_broke_comes_again_in_its_place(redis_server):
    async with pair(redis_server) as (publisher, consumer):
        member = await Member.of(consumer)
        assert await member.fetch(timeout=0.1) == []
        heard = consumer._bells._heard
        consumer._bells._heard = lambda *told: None
        await publish(publisher, envelope("lost"), envelope("lost too"))
        await eventually(lambda: _pending(consumer), "them to be handed out")
        assert await member.fetch(timeout=0.1) == []
        consumer._bells._heard = heard
        consumer._bells._pipe._transport.abort()
        await publish(publisher, envelope("next"))
        got: list[Delivery] = []
        while len(got) < 3:
            got += await member.fetch()
        assert ids(got) == ["lost", "lost too", "next"]
        assert [(each.attempt, each.suspect) for each in got] == [(1, False)] * 3
        assert [each.name for each in (await ack(consumer, *got)).settled] == ["SETTLED"] * 3


async def test_an_answer_that_waits_for_what_never_comes_goes_back_with_it(redis_server):
    async with pair(redis_server) as (publisher, consumer):
        member = await Member.of(consumer)
        assert await member.fetch(1, timeout=0.1) == []
        heard = consumer._bells._heard
        consumer._bells._heard = lambda *told: None
        await publish(publisher, envelope("lost"))  # all that it may be handed
        await publish(publisher, envelope("next"))
        await eventually(lambda: _pending(consumer), "it to be handed out")
        waiting = asyncio.ensure_future(member.fetch(timeout=10))
        member.consumer.look_again()
        await asyncio.sleep(0.1)
        assert not waiting.done()
        consumer._bells._heard = heard
        consumer._bells._pipe._transport.abort()
        got = list(await waiting)
        while len(got) < 2:
            got += await member.fetch()
        assert ids(got) == ["lost", "next"]


async def _pending(transport) -> bool:
    (found,) = (await transport.stats()).values()
    return found.in_flight > 0


@each_version
async def test_what_is_handed_out_and_not_asked_for_is_others_soon(redis_server):
    async with pair(redis_server) as (publisher, consumer):
        busy = await Member.of(consumer)
        assert await busy.fetch(timeout=0.1) == []
        idle = await Member.of(publisher)
        await publish(publisher, *(envelope(str(number)) for number in range(5)))
        got: list[Delivery] = []
        while len(got) < 5:
            got += await idle.fetch()
        assert sorted(ids(got)) == [str(number) for number in range(5)]
        assert {(each.attempt, each.suspect) for each in got} == {(1, False)}
        assert len(consumer.leases) == 0


async def test_what_goes_back_unwanted_keeps_its_place(redis_server):
    async with pair(redis_server) as (publisher, consumer):
        member = await Member.of(consumer)
        assert await member.fetch(timeout=0.1) == []
        await publish(publisher, envelope("1"))
        await eventually(lambda: member.consumer._prefetched, "it to be handed out")
        await publish(publisher, envelope("2"))
        await eventually(lambda: not member.consumer._prefetched, "it to go back")
        await publish(publisher, envelope("3"))
        got: list[Delivery] = []
        while len(got) < 3:
            got += await member.fetch()
        assert ids(got) == ["1", "2", "3"]


async def test_what_could_not_be_given_back_is_given_back_later(redis_server, monkeypatch):
    async with pair(redis_server) as (publisher, consumer):
        member = await Member.of(consumer)
        assert await member.fetch(timeout=0.1) == []
        commit = consumer.commit

        async def fails(*parts):
            monkeypatch.setattr(consumer, "commit", commit)
            raise ConnectionResetError("for a moment")

        monkeypatch.setattr(consumer, "commit", fails)
        await publish(publisher, envelope("1"))
        await eventually(lambda: member.consumer._prefetched, "it to be handed out")
        await eventually(lambda: not member.consumer._prefetched, "it to go back")
        with pytest.raises(ConnectionResetError):
            await member.fetch()
        assert ids(await member.fetch()) == ["1"]


async def test_large_messages_are_told_of_and_fetched(redis_server):
    async with pair(redis_server) as (publisher, consumer):
        member = await Member.of(consumer)
        assert await member.fetch(timeout=0.1) == []
        counts = counted(consumer)
        await publish(publisher, envelope("1", body=b"x" * 300_000))
        (got,) = await member.fetch()
        assert len(got.envelope.body) == 300_000
        assert counts == {"fetched": 1, "handed": 0}


async def test_a_full_member_keeps_nothing_from_the_others(redis_server):
    """It waits for what is more urgent; what is not is for whoever comes behind it."""
    async with pair(redis_server, poll=60) as (publisher, consumer):
        full, other = await Member.of(consumer), await Member.of(publisher)
        assert await full.consumer.fetch({1: Demand(400, more_urgent_than=50)}, 0.1) == []
        waiting = asyncio.ensure_future(other.fetch(100, timeout=10))
        await eventually(lambda: any(place.credit for place in other.consumer.places()), "it to wait")
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


async def test_what_was_handed_out_before_a_seek_is_not_delivered_after_it(redis_server):
    async with pair(redis_server) as (publisher, consumer):
        member = await Member.of(consumer)
        assert await member.fetch(timeout=0.1) == []
        heard, held = consumer._bells._heard, []
        consumer._bells._heard = lambda *told: held.append(told)
        await publish(publisher, envelope("before"))
        await eventually(lambda: held, "it to be handed out")
        await member.consumer.seek(1, "new")
        consumer._bells._heard = heard
        for told in held:
            heard(*told)
        await publish(publisher, envelope("after"))
        got = await member.fetch()
        assert ids(got) == ["after"]
        done = await consumer.commit((), [Settlement(each, Outcome.ACK) for each in got])
        assert [each.name for each in done.settled] == ["SETTLED"]


@pytest.mark.parametrize("leaves", ["the consumer", "the client"])
async def test_what_is_on_its_way_to_one_that_leaves_is_for_the_others(redis_server, leaves):
    prefix = new_prefix()
    async with opened(redis_server.url(), prefix=prefix, lease=5) as staying:
        await staying.client.ensure("orders")
        async with opened(redis_server.url(), prefix=prefix, lease=5) as leaving:
            member = await Member.of(leaving)
            assert await member.fetch(timeout=0.1) == []
            heard, held = leaving._bells._heard, []
            leaving._bells._heard = lambda *told: held.append(told)
            await publish(staying, envelope("1"), envelope("2"))
            await eventually(lambda: held, "them to be handed out")
            if leaves == "the consumer":
                closing = asyncio.ensure_future(member.consumer.close())
                await asyncio.sleep(0.05)
                assert not closing.done()
                for told in held:
                    heard(*told)
                await closing
        other = await Member.of(staying)
        got: list[Delivery] = []
        while len(got) < 2:
            got += await other.fetch()
        assert ids(got) == ["1", "2"]
        assert {(each.attempt, each.suspect) for each in got} == {(1, False)}


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
        sizes, seen = [], []
        while len(seen) < count:
            got = await member.fetch(500)
            assert got, f"only {len(seen)} came"
            sizes.append(len(got))
            seen += ids(got)
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
        await eventually(lambda: any(place.credit for place in member.consumer.places()), "it to wait")
        delayed = [envelope(f"delayed {n}", body=body, delay_ns=400_000_000) for n in range(200)]
        await publish(publisher, *delayed, envelope("now", body=body))
        assert ids(await waiting) == ["now"]
        seen: list[str] = []
        while len(seen) < len(delayed):
            got = await member.fetch()
            assert got, f"only {len(seen)} came"
            seen += ids(got)
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
        sizes, seen = [], []
        while len(seen) < count:
            got = await member.fetch(500)
            assert got, f"only {len(seen)} came"
            sizes.append(len(got))
            seen += ids(got)
        assert seen == [*(str(n) for n in range(1, count)), "0"]
        assert max(sizes) < 20  # of 1 MB
        await consumer.commit((), [Settlement(each, Outcome.RELEASE) for each in consumer.leases.all()])
        sizes, seen = [], []
        while len(seen) < count:
            got = await member.fetch(500)
            sizes.append(len(got))
            seen += ids(got)
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
        await eventually(lambda: any(place.credit for place in member.consumer.places()), "it to wait")
        await publish(publisher, envelope("holder", key="k"))
        assert ids(await holder) == ["holder"]
        waiting = asyncio.ensure_future(member.fetch())
        await asyncio.sleep(0.05)
        await publish(publisher, *(envelope(f"parked {n}", body=body, key="k") for n in range(12)), envelope("free"))
        assert ids(await waiting) == ["free"]


@each_version
@pytest.mark.parametrize("channels", [1, 2])
async def test_a_group_that_was_destroyed_while_something_had_come_back_begins_anew(redis_server, channels):
    """On one channel a fetch finds out, on several a look."""
    async with pair(redis_server) as (publisher, consumer):
        member = await Member.of(consumer, pattern="*" if channels == 2 else "orders")
        if channels == 2:
            await publish(publisher, envelope("other", channel="other"))
        names = {"a", "b", "c"} | ({"other"} if channels == 2 else set())
        await publish(publisher, *map(envelope, ("a", "b", "c")))
        got: list[Delivery] = []
        while len(got) < len(names):
            got += await member.fetch()
        await consumer.commit((), [Settlement(each, Outcome.NACK, delay_ns=50_000_000) for each in got])
        base = consumer.client.layout.base("orders")
        await publisher.client.call("x", "XGROUP", "DESTROY", f"{base}:p:50", "g")
        seen: set[str] = set()
        while not seen >= names:
            found = await member.fetch()
            assert found, f"only {sorted(seen)} came"
            seen |= set(ids(found))
            await ack(consumer, *found)
        assert consumer._runtime.told("was missing on a stream")
        assert await member.fetch(timeout=0.2) == []


@each_version
async def test_names_that_are_given_up_leave_nothing_on_the_server(redis_server):
    async with pair(redis_server) as (publisher, consumer):
        member = await Member.of(consumer)
        await publish(publisher, *map(envelope, "abc"))
        assert len(await member.fetch(1)) == 1
        for _ in range(5):
            id = await consumer._bells._pipe.call("CLIENT", "ID")
            await publisher.client.call("x", "CLIENT", "KILL", "ID", id)
            await eventually(lambda: not consumer.listening, "the connection to be gone")
            await eventually(lambda: consumer.listening, "another")
            await member.fetch(1, timeout=0.2)
        base = consumer.client.layout.base("orders")
        await consumer.close()
        found = await publisher.client.call("x", "XINFO", "CONSUMERS", f"{base}:p:50", "g")
        assert [info[b"name"] for info in found] == [b"_waiting"]
        fences = await publisher.client.call("x", "KEYS", f"{base}:taken*".replace("{", "?").replace("}", "?"))
        assert fences
        assert all([await publisher.client.call("x", "PTTL", fence) > 0 for fence in fences])


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
            await eventually(lambda member=member: any(place.credit for place in member.consumer.places()), "a credit")
        began = int(time.time() * 1000)
        for number in range(30):
            publisher.client.clock = began + 32 * number
            await publish(publisher, envelope(str(number)))
            await eventually(lambda number=number: sum(counts) == number + 1, "it")
        for each in consuming:
            each.cancel()
    assert min(counts) > 5, counts
