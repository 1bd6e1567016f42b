"""Row 15: the append-only file ends too early. The server opens it, what is left is a prefix, and the loss is told."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from neuralcore_transports.redis import RedisTransport
from tests.faults.plan import SEED, figures, tell, times
from tests.faults.redis.clients import message, opened, reader, settle, take
from tests.servers.redis import RedisServer

STREAM = "nc:{work}:p:50"
COUNT = 12


def log_of(server: RedisServer) -> Path:
    (found,) = (server.folder / "appendonlydir").glob("*.incr.aof")
    return found


def stored(server: RedisServer) -> list[str]:
    with server.client() as client:
        return [fields["ce_id"] for _, fields in client.xrange(STREAM)]


async def publish(made: RedisTransport, server: RedisServer, turn: int) -> list[int]:
    """The sizes of the log behind each message."""
    sizes = []
    for number in range(COUNT):
        await made.commit([message(f"{turn}-{number}")])
        sizes.append(log_of(server).stat().st_size)
    return sizes


async def cut(server: RedisServer, size: int) -> None:
    await asyncio.to_thread(server.kill)
    os.truncate(log_of(server), size)
    await asyncio.to_thread(server.start)


@pytest.mark.parametrize("first", ["a consumer that looks", "a publisher that goes on", "another publisher"])
async def test_what_is_left_is_a_prefix_and_the_loss_is_told(
    start_redis: Callable[..., RedisServer], first: str
) -> None:
    """``first``: who comes first after the restart. A client that has seen more than there is now must say so."""
    server = start_redis(appendfsync="always", options={"auto-aof-rewrite-percentage": "0"})
    rng, rounds, silent, gone = random.Random(f"{SEED}/{first}"), times(4, 60), 0, 0
    async with opened(server) as (made, runtime), opened(server) as (other, _), reader(made) as consumer:
        await other.commit([message("first")])
        for turn in range(rounds):
            sizes = await publish(made, server, turn)
            held = await take(consumer, COUNT + 1)
            await settle(made, held)
            sizes = await publish(made, server, rounds + turn)
            where = rng.randrange(sizes[0], sizes[-1])
            await cut(server, where)
            left = [id for id in stored(server) if id.startswith(f"m-{rounds + turn}-")]
            wanted = [f"m-{rounds + turn}-{number}" for number in range(COUNT)]
            assert left == wanted[: len(left)]
            assert len(left) >= sum(size <= where for size in sizes)
            lost = COUNT - len(left)
            gone += lost
            told = len(runtime.told)
            if first != "a consumer that looks":
                await (made if first == "a publisher that goes on" else other).commit([message(f"after-{turn}")])
            found = await take(consumer, COUNT + 2, timeout=1.5)
            assert set(left) <= {each.envelope.id for each in found}
            await settle(made, found)
            silent += bool(lost) and len(runtime.told) == told
    counts = {"attempted": 2 * rounds * COUNT, "acked": 2 * rounds * COUNT, "lost": gone}
    tell(15, f"log truncated; then {first}", figures("truncation", rounds, **counts, note=f"not told of: {silent}"))
    assert silent == 0
