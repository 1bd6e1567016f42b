"""One injectable clock: what waits does not jump, what stamps follows the wall clock."""

from __future__ import annotations

import asyncio

import pytest

from neuralcore.messaging.retry import RetryPolicy
from neuralcore.testing import Recorder, idle, virtual, virtual_bus

BOTH = pytest.mark.parametrize("url", ["native://", "memory://"])
JUMPS = pytest.mark.parametrize("jump", [7200, -7200])


def clock():
    return asyncio.get_running_loop().clock


async def subscribed(bus, channel, recorder, **options):
    subscription = bus.subscribe(channel, recorder.handle, group="g", **options)
    await subscription.ready()
    return subscription


@BOTH
@virtual
async def test_messages_are_stamped_by_the_clock(url):
    async with virtual_bus(url) as bus:
        got = Recorder()
        await subscribed(bus, "jobs", got)
        await asyncio.sleep(1000)
        now = clock().time_ns()
        await bus.publish("jobs", 1, ttl=60.0)
        (message,) = await got.wait(1)
        assert message.timestamp_ns == now
        assert message.timestamp == pytest.approx(now / 1e9)
        assert message.expires_at_ns == now + 60 * 10**9


@BOTH
@JUMPS
@virtual
async def test_retries_do_not_jump_with_the_wall_clock(url, jump):
    def fail_once(message):
        if message.attempt == 1:
            raise RuntimeError("on purpose")

    async with virtual_bus(url) as bus:
        got = Recorder(fail_once)
        await subscribed(bus, "jobs", got, retry=RetryPolicy(base=10.0, jitter=False))
        await bus.publish("jobs", 1)
        await got.wait(1)
        await asyncio.sleep(1)
        clock().jump(jump * 10**9)
        await got.wait(2)
        assert got.times[1] - got.times[0] == pytest.approx(10.0, abs=0.01)


@BOTH
@JUMPS
@virtual
async def test_delay_does_not_jump_with_the_wall_clock(url, jump):
    async with virtual_bus(url) as bus:
        got = Recorder()
        await subscribed(bus, "jobs", got)
        before = asyncio.get_running_loop().time()
        await bus.publish("jobs", 1, delay=10.0)
        await asyncio.sleep(1)
        clock().jump(jump * 10**9)
        await got.wait(1)
        assert got.times[0] - before == pytest.approx(10.0, abs=0.01)


@BOTH
@virtual
async def test_expiry_follows_the_wall_clock(url):
    async with virtual_bus(url) as bus:
        gate = asyncio.Event()
        got = Recorder(lambda message: gate.wait())
        await subscribed(bus, "jobs", got)
        await bus.publish("jobs", "first")
        await got.wait(1)
        await bus.publish("jobs", "expires", ttl=3600.0)
        await bus.publish("jobs", "stays", ttl=3600.0 * 3)
        clock().jump(7200 * 10**9)
        gate.set()
        await asyncio.sleep(60)
        assert got.payloads == ["first", "stays"]
        assert bus.metrics().expired == 1


@BOTH
@virtual
async def test_not_before_is_a_wall_clock_time(url):
    async with virtual_bus(url) as bus:
        got = Recorder()
        await subscribed(bus, "jobs", got)
        before = asyncio.get_running_loop().time()
        await bus.publish("jobs", 1, not_before=clock().time_ns() / 1e9 + 20.0)
        await got.wait(1)
        assert got.times[0] - before == pytest.approx(20.0, abs=0.01)


@BOTH
@virtual
async def test_expired_messages_never_reach_a_handler_and_are_counted(url):
    async with virtual_bus(url) as bus:
        gate = asyncio.Event()
        got = Recorder(lambda message: gate.wait())
        await subscribed(bus, "jobs", got)
        for n in range(10):
            await bus.publish("jobs", n, ttl=5.0 if n % 2 else None)
        await got.wait(1)
        await asyncio.sleep(6)
        gate.set()
        await asyncio.sleep(60)
        assert got.payloads == [0, 2, 4, 6, 8]
        assert bus.metrics().expired == 5


@BOTH
@virtual
async def test_expired_messages_are_dead_lettered_where_that_is_configured(url):
    async with virtual_bus(url) as bus:
        gate, dead = asyncio.Event(), Recorder()
        got = Recorder(lambda message: gate.wait())
        await subscribed(bus, "_dlq.jobs", dead)
        await subscribed(bus, "jobs", got, expired="dead_letter")
        await bus.publish("jobs", "first")
        await got.wait(1)
        await bus.publish("jobs", "late", ttl=5.0)
        await asyncio.sleep(6)
        gate.set()
        (letter,) = await dead.wait(1)
        assert (letter.payload, letter.headers["nc-dlq-reason"]) == ("late", "expired")


@virtual
async def test_an_expired_message_gives_its_slot_back():
    async with virtual_bus() as bus:
        gate = asyncio.Event()
        got = Recorder(lambda message: gate.wait())
        bus.subscribe("jobs", got.handle, capacity=2)
        await bus.publish("jobs", "held")
        await got.wait(1)
        await bus.publish("jobs", "expires", ttl=1.0)
        await asyncio.sleep(2)
        gate.set()
        await idle()
        for n in range(2):
            assert bus.publish_nowait("jobs", n) is not None


@BOTH
@virtual
async def test_a_day_of_delay_takes_no_time(url):
    async with virtual_bus(url) as bus:
        got = Recorder()
        await subscribed(bus, "jobs", got)
        before = asyncio.get_running_loop().time()
        await bus.publish("jobs", 1, delay=86_400.0)
        await got.wait(1)
        assert got.times[0] - before == pytest.approx(86_400.0, abs=0.01)
