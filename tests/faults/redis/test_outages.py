"""Rows 3, 5 and 9, where it takes a finer hand: what an outage does to those who live through it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.acts import inside_a_handler
from tests.faults.plan import figures, tell, times
from tests.faults.redis.clients import message, opened, reader, settle, take
from tests.faults.redis.stage import RedisStage
from tests.faults.stage import reply
from tests.servers.redis import RedisServer


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_an_outage_longer_than_the_lease_takes_nothing_from_the_living(
    tmp_path: Path, start_redis: Callable[..., RedisServer], how: str
) -> None:
    """Nobody could say that he lives: whoever is the first to say so again is not to take it from the others."""
    server = start_redis(appendfsync="always")
    with RedisStage(tmp_path, server, query="lease=1&timeout=1") as stage:
        workers = [stage.consumer(work=6.0) for _ in range(3)]
        for turn in range(times(1, 5)):
            stage.publish(turn * 3, 3)
            for worker in workers:
                inside_a_handler(worker)
            stage.journal.fault(f"server {how} for 3 leases")
            server.kill() if how == "killed" else server.pause()
            time.sleep(3)
            server.start() if how == "killed" else server.resume()
            stage.until_settled(timeout=30)
            assert stage.debris(timeout=20) == []
        lost = sum(reply(worker)["lease lost"] for worker in workers)
        story = stage.story()
        tell(3 if how == "killed" else 5, f"server {how} for 3 leases", story, f"leases lost: {lost}")
        story.check()
        assert (lost, story.redelivered) == (0, 0)


async def test_a_publish_waits_while_the_server_loads_its_data(start_redis: Callable[..., RedisServer]) -> None:
    """LOADING passes within the patience."""
    server = start_redis(appendfsync="everysec")
    with server.client() as client:
        for part in range(20):
            client.eval("for i = 1, 40000 do redis.call('SET', ARGV[1] .. '-' .. i, 'v') end", 0, part)
    async with opened(server, "lease=1&timeout=2&patience=10") as (made, runtime):
        await made.commit([message(0)])
        for turn in range(times(1, 5)):
            await asyncio.to_thread(server.kill)
            server.start(wait=False)
            await made.commit([message(f"{turn}-{number}") for number in range(3)])
            await asyncio.to_thread(server.wait_ready)
        assert runtime.told == []
    tell(3, "published while the server loads", figures("kill -9 server", times(1, 5), lost=0))


async def test_a_request_that_arrives_after_its_consumer_was_recovered_takes_nothing(
    start_redis: Callable[..., RedisServer],
) -> None:
    """It timed out here and was given up, and the network or a stopped server had it all the time."""
    server = start_redis(appendfsync="no")
    async with opened(server) as (made, _), reader(made) as consumer:
        await made.commit([message(0)])
        await settle(made, await take(consumer))
        (place,) = consumer.places()
        old = place.consumer
        place.rename(made.consumer_name())
        consumer.look_again()
        await take(consumer, timeout=0.3)
        assert not place.broken
        await made.client.channel("away", place.base, "g", made.client.session)
        await made.commit([message(number) for number in (1, 2, 3)])
        await made.client.fetch(place.channel, place.base, "g", old, 2, 2, 256, 0)
        found = await take(consumer, 3, timeout=4)
        await settle(made, found)
    counts = {"attempted": 4, "acked": 4, "delivered": 1 + len(found), "lost": 3 - len(found)}
    tell(9, "a request that arrives too late", figures("late request", 1, **counts))
    assert sorted(each.envelope.id for each in found) == ["m-1", "m-2", "m-3"]


async def test_a_loss_is_counted_once(start_redis: Callable[..., RedisServer]) -> None:
    from neuralcore.messaging.bus import MessageBus
    from neuralcore_transports.redis import RedisTransport

    server = start_redis(appendfsync=None)
    async with MessageBus(RedisTransport.from_url(f"{server.url()}/0?lease=1&timeout=2")) as bus:
        await bus.publish("work", 1)
        with server.client() as client:
            client.flushall()
        await bus.publish("work", 2)
        for _ in range(100):
            if counted := bus.metrics().transport.get("data_lost", 0):
                break
            await asyncio.sleep(0.02)
    assert counted == 1
