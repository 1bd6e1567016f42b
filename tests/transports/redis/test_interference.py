"""What others do to our keys: flush them, make them, destroy them, trim them; and that all goes on."""

from __future__ import annotations

import asyncio

import pytest

from neuralcore.messaging.errors import TransportError
from tests.servers.missing import ALL_REDIS_VERSIONS
from tests.transports.redis.clients import (
    Member,
    ack,
    beats,
    envelope,
    eventually,
    ids,
    left_over,
    new_prefix,
    opened,
    publish,
    works,
)

versions = pytest.mark.parametrize("version", ALL_REDIS_VERSIONS)
each_version = pytest.mark.parametrize("redis_server", ALL_REDIS_VERSIONS, indirect=True)


async def test_a_group_of_our_name_that_somebody_else_has_made(redis_server):
    prefix = new_prefix()
    with redis_server.client() as admin:
        admin.xgroup_create(f"{prefix}:{{orders}}:p:50", "g", mkstream=True)
    async with opened(redis_server.url(), prefix=prefix) as transport:
        member = await Member.of(transport)
        await publish(transport, envelope("one"), envelope("two", priority=3))
        assert [each.envelope.id for each in await member.drain("one", "two")] == ["two", "one"]


@each_version
@pytest.mark.parametrize("command", ["SCRIPT FLUSH", "FUNCTION FLUSH"])
async def test_scripts_that_are_flushed(redis_server, command):
    prefix = new_prefix()
    async with opened(redis_server.url(), prefix=prefix, lease=0.5) as transport:
        if command == "FUNCTION FLUSH" and transport._servers.version() < (7, 0):
            pytest.skip("for servers from 7.0 on")
        member = await Member.of(transport)
        with redis_server.client() as admin:
            for number in range(20):
                admin.execute_command(command)
                await publish(transport, envelope(f"m{number}"))
                admin.execute_command(command)
                (got,) = await member.fetch()
                admin.execute_command(command)
                await ack(transport, got)
                assert (got.envelope.id, got.attempt, got.suspect) == (f"m{number}", 1, False)
        inbox = await transport.inbox()
        await beats(transport, 2)
        assert transport._runtime.counters["upkeep_failed"] == 0
        assert inbox.address


@pytest.mark.slow
@each_version
async def test_everything_is_flushed(redis_server):
    server = redis_server
    prefix = new_prefix()
    async with opened(server.url(), prefix=prefix, lease=0.5, poll=0.2) as transport:
        member = await Member.of(transport)
        broadcast = await Member.of(transport, None)
        await publish(transport, envelope("lost"), envelope("other", channel="other"))
        (held,) = await member.fetch()
        forget(server, prefix)

        async def told() -> bool:
            await member.fetch(timeout=0.1)
            return transport._runtime.told("data lost on orders")

        await eventually(told, "the loss to be reported")
        assert [each.name for each in (await ack(transport, held)).settled] == ["LEASE_LOST"]
        await works(transport, member)
        sent = envelope()
        await publish(transport, sent)
        assert sent.id in {each.envelope.id for each in await broadcast.drain(sent.id)}
        await publish(transport, envelope(channel="other"))
        await eventually(lambda: transport._runtime.told("data lost on other"), "the other loss to be reported")
        assert sorted(await transport.channels()) == ["orders", "other"]


def forget(server, prefix: str) -> None:
    """FLUSHALL, of what one test has on a server that is shared."""
    with server.client() as admin:
        admin.eval(
            "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('UNLINK', key) end", 0, f"{prefix}:*"
        )


@versions
async def test_flushall_while_traffic_runs(start_redis, version):
    server = start_redis(version=version)
    async with opened(server.url(), lease=0.5, poll=0.2) as transport:
        member = await Member.of(transport)
        first = envelope()
        await publish(transport, first)
        sent: list[str] = []
        got: list[str] = []
        ended = asyncio.Event()

        async def send() -> None:
            while not ended.is_set():
                one = envelope()
                await publish(transport, one)
                sent.append(one.id)

        async def receive() -> None:
            while not ended.is_set():
                try:
                    found = await member.fetch(timeout=0.2)
                    await ack(transport, *found)
                    got.extend(ids(found))
                except TransportError:
                    await asyncio.sleep(0.05)

        running = [asyncio.ensure_future(each()) for each in (send, receive)]
        with server.client() as admin:
            for _ in range(5):
                await asyncio.sleep(0.1)
                admin.flushall()
        before = len(sent) + 1  # one may be on its way
        await eventually(lambda: len(sent) > before + 20, "publishing to go on")
        await eventually(lambda: set(got) & set(sent[before:]), "deliveries to go on")
        ended.set()
        await asyncio.gather(*running)
        got += await left_over(transport, member)
        assert set(sent[before:]) <= set(got) <= {first.id, *sent}
        assert transport._runtime.told("data lost on orders")
        await works(transport, member)


@each_version
async def test_a_group_that_somebody_else_destroys(redis_server):
    prefix = new_prefix()
    async with opened(redis_server.url(), prefix=prefix, poll=0.2) as transport:
        member = await Member.of(transport)
        await publish(transport, envelope("settled"))
        await member.drain("settled")
        with redis_server.client() as admin:
            assert admin.xgroup_destroy(f"{prefix}:{{orders}}:p:50", "g")
        await publish(transport, envelope("after"))
        await member.drain("after")
        assert transport._runtime.told("data lost on orders: the group 'g' was missing")
        await works(transport, member)


@each_version
async def test_a_group_that_somebody_destroys_while_messages_are_in_flight(redis_server):
    prefix = new_prefix()
    async with opened(redis_server.url(), prefix=prefix, poll=0.2) as transport:
        member = await Member.of(transport)
        await publish(transport, envelope("held"))
        (held,) = await member.fetch()
        with redis_server.client() as admin:
            admin.xgroup_destroy(f"{prefix}:{{orders}}:p:50", "g")
        assert [each.name for each in (await ack(transport, held)).settled] == ["SETTLED"]
        await works(transport, member)


@each_version
async def test_streams_that_somebody_trims(redis_server):
    prefix = new_prefix()
    async with opened(redis_server.url(), prefix=prefix, poll=0.2) as transport:
        member = await Member.of(transport)
        await publish(transport, envelope("held"), envelope("queued"))
        (held,) = await member.fetch(1)
        with redis_server.client() as admin:
            admin.xtrim(f"{prefix}:{{orders}}:p:50", maxlen=0)
        assert [each.name for each in (await ack(transport, held)).settled] == ["SETTLED"]
        await works(transport, member)
        assert (await transport.stats())["orders"].depth == 0
