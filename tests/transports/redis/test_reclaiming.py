"""What a silent client had in flight goes to others, once, though all of them see that it is silent."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from tests.servers.missing import ALL_REDIS_VERSIONS
from tests.transports.redis.clients import Member, envelope, eventually, new_prefix, opened, publish

CHANNELS = [f"orders.{number}" for number in range(8)]
each_version = pytest.mark.parametrize("redis_server", ALL_REDIS_VERSIONS, indirect=True)


class At(random.Random):
    """Always the same place between the bounds."""

    def __init__(self, place: float) -> None:
        super().__init__()
        self.place = place

    def random(self) -> float:
        return self.place


def asked(transport) -> Counter[str]:
    """How often it will have reclaimed each channel."""
    counted: Counter[str] = Counter()
    channel = transport.client.channel

    async def count(what, base, *parts):
        counted[base] += what == "reclaim"
        return await channel(what, base, *parts)

    transport.client.channel = count
    return counted


@each_version
async def test_each_channel_is_reclaimed_by_whoever_comes_first(redis_server, monkeypatch):
    """Three others, a quarter of a lease apart at most, and several beats: each channel is looked through once."""
    url, prefix = redis_server.url(), new_prefix()
    monkeypatch.setattr("neuralcore_transports.redis.reclaiming._AT_ONCE", 3)
    async with AsyncExitStack() as open_ones:
        others = [await open_ones.enter_async_context(opened(url, prefix=prefix, lease=2)) for _ in range(3)]
        members = [await Member.of(other, pattern="orders.*") for other in others]
        dead = await open_ones.enter_async_context(opened(url, prefix=prefix, lease=0.5))
        holding = await Member.of(dead, pattern="orders.*")
        sent = [envelope(channel=channel) for channel in CHANNELS]
        await publish(dead, *sent)
        held = await holding.fetch()
        assert len(held) == len(CHANNELS)
        counted = [asked(other) for other in others]
        for other, place in zip(others, (0.0, 0.5, 0.9), strict=True):
            other.reclaiming.random = At(place)
        dead._keeper.stop()
        await members[1].drain(*(each.id for each in sent))
        await asyncio.sleep(1.2)
        together = sum(counted, Counter[str]())
        assert len(together) == len(CHANNELS)
        assert sum(together.values()) < 2 * len(CHANNELS), counted


async def test_nothing_is_taken_from_a_client_that_lives_again(redis_server):
    url, prefix = redis_server.url(), new_prefix()
    async with opened(url, prefix=prefix) as alive, opened(url, prefix=prefix) as other:
        member = await Member.of(alive)
        await Member.of(other)
        await publish(alive)
        await member.fetch()
        counted = asked(other)
        other.reclaiming.random = At(0.0)
        for ended in (False, True):
            await other.reclaiming.reclaim(alive.client.session, ended=ended)
        assert not counted
        sessions = await alive.client.registry("sessions")
        assert alive.client.session.encode() in sessions


@each_version
async def test_what_was_reclaimed_is_so_again_after_a_lease(redis_server):
    """A fetch of the silent one may have been on its way."""
    url, prefix = redis_server.url(), new_prefix()
    async with (
        opened(url, prefix=prefix, lease=1) as other,
        opened(url, prefix=prefix, lease=0.5, session_ttl=60) as dead,
    ):
        await Member.of(other)
        late = await Member.of(dead)
        counted = asked(other)
        dead._keeper.stop()
        base = other.client.layout.base("orders")
        await publish(other)
        await eventually(lambda: counted[base], "the first time")
        await late.fetch()
        await eventually(lambda: counted[base] == 2, "the second time")

        async def taken() -> bool:
            return (await other.stats())["orders"].in_flight == 0

        await eventually(taken, "what came late to go back")


async def test_who_is_silent_for_longer_than_its_session_is_cleared_up_by_one(redis_server):
    url, prefix = redis_server.url(), new_prefix()
    async with AsyncExitStack() as open_ones:
        others = [
            await open_ones.enter_async_context(opened(url, prefix=prefix, lease=0.5, session_ttl=1)) for _ in range(3)
        ]
        dead = await open_ones.enter_async_context(opened(url, prefix=prefix, lease=0.5))
        await Member.of(dead, None)
        await publish(dead)
        dead._keeper.stop()

        async def cleared() -> bool:
            known = await others[0].client.registry("sessions")
            (groups,) = [(await others[0].stats())["orders"]]
            return len(known) == 3 and not groups.in_flight

        await eventually(cleared, "the session to end")
        left = await others[0].client.channel("stats", others[0].client.layout.base("orders"))
        assert left[5:] == [], "its broadcast is over"


@each_version
async def test_the_latest_of_very_many_dead_clients_is_not_forgotten(redis_server):
    """A client that died is remembered for ``session_ttl``; a thousand may die in that time."""
    url, prefix = redis_server.url(), new_prefix()
    async with opened(url, prefix=prefix, lease=1) as other, opened(url, prefix=prefix, lease=0.5) as dead:
        holding, member = await Member.of(dead), await Member.of(other)
        sent = envelope()
        await publish(dead, sent)
        while not (await holding.fetch(timeout=0.1) or await member.fetch(timeout=0)):
            pass
        sessions = f"{other.client.layout.registry}:sessions"
        now = int(time.time() * 1000)
        old = [part for number in range(1500) for part in (now - 20_000 + number, f"old-{number}")]
        await other.client.call(sessions, "ZADD", sessions, *old)
        dead._keeper.stop()
        await member.drain(sent.id)
