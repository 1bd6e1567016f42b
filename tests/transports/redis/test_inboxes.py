"""Where replies arrive, and for how long."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from neuralcore.messaging.transport import PublishStatus
from neuralcore_transports.redis import RedisTransport
from tests.transports.clients import eventually, new_prefix
from tests.transports.redis.clients import envelope, opened, publish

LARGE = b'"' + b"x" * 300_000 + b'"'
"""It is kept, and not told."""
BRIEF = {"lease": 1, "session_ttl": 1}


@pytest.fixture
def prefix() -> str:
    return new_prefix()


@pytest.fixture
async def two(redis_server: Any, prefix: str) -> Any:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(opened(redis_server.url(), prefix=prefix, **BRIEF)) for _ in range(2)]


def keys_of(server: Any, prefix: str) -> list[str]:
    with server.client() as admin:
        return [key for key in admin.keys(f"{prefix}:*") if "_inbox" in key]


async def test_of_a_client_that_falls_silent_no_key_stays(
    redis_server: Any, prefix: str, two: list[RedisTransport]
) -> None:
    silent, other = two
    inbox = await silent.inbox()
    await asyncio.to_thread(silent._keeper.stop)
    reply = envelope(channel=inbox.address, body=LARGE)
    assert await publish(other, reply) == [PublishStatus.STORED]
    assert len(keys_of(redis_server, prefix)) == 2
    await eventually(lambda: not keys_of(redis_server, prefix), "the keys of an inbox to expire")
    assert await publish(other, envelope(channel=inbox.address)) == [PublishStatus.DROPPED]
    assert keys_of(redis_server, prefix) == []


async def test_while_its_client_lives_everything_stays(
    redis_server: Any, prefix: str, two: list[RedisTransport]
) -> None:
    alive, other = two
    inbox = await alive.inbox()
    replies = [envelope(channel=inbox.address, body=LARGE) for _ in range(2)]
    assert await publish(other, *replies) == [PublishStatus.STORED] * 2
    with redis_server.client() as admin:
        for key in keys_of(redis_server, prefix):
            left = admin.pttl(key)
            await eventually(lambda key=key, left=left: admin.pttl(key) > left, f"{key} to be kept")
    await asyncio.sleep(1.5)
    assert [each.id for each in await inbox.fetch(5.0)] == [each.id for each in replies]


async def test_one_that_is_closed_is_gone_at_once(redis_server: Any, prefix: str, two: list[RedisTransport]) -> None:
    closing, other = two
    inbox = await closing.inbox()
    await publish(other, envelope(channel=inbox.address, body=LARGE))
    await inbox.close()
    assert keys_of(redis_server, prefix) == []
    assert await publish(other, envelope(channel=inbox.address)) == [PublishStatus.DROPPED]
