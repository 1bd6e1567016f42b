"""What was handed out and reaches nobody: it goes back, for whoever asks next, in its place and uncounted."""

from __future__ import annotations

import asyncio

import pytest

from neuralcore.messaging.transport import Outcome, Settlement
from tests.servers.missing import ALL_REDIS_VERSIONS
from tests.transports.redis.clients import Member, ack, envelope, eventually, ids, new_prefix, opened, pair, publish

each_version = pytest.mark.parametrize("redis_server", ALL_REDIS_VERSIONS, indirect=True)


async def _pending(transport) -> bool:
    (found,) = (await transport.stats()).values()
    return found.in_flight > 0


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
        got = await member.fetch_all(3)
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


@each_version
async def test_what_is_handed_out_and_not_asked_for_is_others_soon(redis_server):
    async with pair(redis_server) as (publisher, consumer):
        busy = await Member.of(consumer)
        assert await busy.fetch(timeout=0.1) == []
        idle = await Member.of(publisher)
        await publish(publisher, *(envelope(str(number)) for number in range(5)))
        got = await idle.fetch_all(5)
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
        got = await member.fetch_all(3)
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
        got = await other.fetch_all(2)
        assert ids(got) == ["1", "2"]
        assert {(each.attempt, each.suspect) for each in got} == {(1, False)}


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
        got = await member.fetch_all(len(names))
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
