"""Order: strict priority, first come first served, keys."""

from __future__ import annotations

import asyncio
import random

import pytest

from neuralcore.messaging.retry import Reject, RetryPolicy
from neuralcore.testing import Recorder, idle, virtual, virtual_bus

BOTH = pytest.mark.parametrize("url", ["native://", "memory://"])
SLOW = RetryPolicy(max_attempts=3, base=5.0, jitter=False)


@virtual
async def test_priority_is_strict_and_fifo_inside_one_priority():
    async with virtual_bus() as bus:
        gate, rng = asyncio.Event(), random.Random(1)
        got = Recorder(lambda message: gate.wait())
        bus.subscribe("jobs", got.handle, capacity=2000)
        await bus.publish("jobs", (-1, -1))
        await got.wait(1)
        sent = [(rng.randrange(256), n) for n in range(1000)]
        for rank, n in sent:
            await bus.publish("jobs", (rank, n), priority=rank)
        gate.set()
        await got.wait(1001)
        assert got.payloads[1:] == sorted(sent)


@BOTH
@virtual
async def test_a_retried_message_without_a_key_comes_back_behind_its_equals(url):
    def fail_first(message):
        if message.payload == 0 and message.attempt == 1:
            raise RuntimeError("on purpose")

    async with virtual_bus(url) as bus:
        gate = asyncio.Event()

        async def act(message):
            await gate.wait()
            fail_first(message)

        got = Recorder(act)
        await bus.subscribe("jobs", got.handle, group="g", retry=RetryPolicy(base=0.0)).ready()
        for n in range(4):
            await bus.publish("jobs", n)
        await got.wait(1)
        await idle()
        gate.set()
        await got.wait(5)
        assert got.payloads == [0, 1, 2, 3, 0]


@BOTH
@virtual(seeds=5)
async def test_one_key_is_handled_in_order_one_at_a_time(url):
    running = {}

    async def act(message):
        assert running.setdefault(message.key, 0) == 0
        running[message.key] = 1
        await asyncio.sleep(0.01 * (message.payload % 3))
        running[message.key] = 0

    async with virtual_bus(url) as bus:
        got = Recorder(act)
        for _ in range(2):
            await bus.subscribe("jobs", got.handle, group="g", concurrency=4).ready()
        for n in range(100):
            await bus.publish("jobs", n, key=f"k{n % 7}")
        await got.wait(100)
        await asyncio.sleep(60)
        for number in range(7):
            mine = [message.payload for message in got.messages if message.key == f"k{number}"]
            assert mine == list(range(number, 100, 7))


@BOTH
@pytest.mark.parametrize("hold", [True, False])
@virtual
async def test_a_keyed_message_that_fails_is_held_in_place_or_passed_by_policy(url, hold):
    def act(message):
        if message.payload == "a0" and message.attempt < 3:
            raise RuntimeError("on purpose")

    async with virtual_bus(url) as bus:
        got = Recorder(act)
        await bus.subscribe("jobs", got.handle, group="g", retry=SLOW, hold_keys=hold).ready()
        for n in range(2):
            await bus.publish("jobs", f"a{n}", key="a")
            await bus.publish("jobs", f"b{n}", key="b")
        await asyncio.sleep(600)
        mine = [payload for payload in got.payloads if payload.startswith("a")]
        assert mine == (["a0"] * 3 + ["a1"] if hold else ["a0", "a1", "a0", "a0"])
        others = [time for time, payload in zip(got.times, got.payloads, strict=True) if payload.startswith("b")]
        assert others[-1] - got.times[0] < 1.0, "other keys run meanwhile"


@BOTH
@virtual
async def test_a_key_goes_on_when_its_message_is_dead(url):
    def act(message):
        if message.payload == 0:
            raise Reject("dead")

    async with virtual_bus(url) as bus:
        got = Recorder(act)
        await bus.subscribe("jobs", got.handle, group="g").ready()
        for n in range(3):
            await bus.publish("jobs", n, key="k")
        await got.wait(3)
        assert got.payloads == [0, 1, 2]


@virtual
async def test_a_key_that_waits_keeps_no_worker():
    async with virtual_bus() as bus:
        gate = asyncio.Event()
        got = Recorder(lambda message: gate.wait() if message.key == "slow" else None)
        bus.subscribe("jobs", got.handle, concurrency=2)
        for n in range(10):
            await bus.publish("jobs", n, key="slow")
        for n in range(10):
            await bus.publish("jobs", n, key="fast")
        await idle()
        assert [message.key for message in got.messages].count("fast") == 10
        assert bus.metrics().subscriptions[0].parked == 9
        gate.set()


@virtual
async def test_concurrency_is_workers_on_one_mailbox():
    async with virtual_bus() as bus:
        gate = asyncio.Event()
        got = Recorder(lambda message: gate.wait())
        bus.subscribe("jobs", got.handle, concurrency=3, capacity=10)
        for n in range(7):
            await bus.publish("jobs", n)
        await idle()
        stats = bus.metrics().subscriptions[0]
        assert (len(got.messages), stats.in_flight, stats.queued) == (3, 3, 4)
        gate.set()
        await got.wait(7)


@virtual
async def test_within_one_priority_keys_do_not_change_the_order_across_priorities():
    async with virtual_bus() as bus:
        gate = asyncio.Event()
        got = Recorder(lambda message: gate.wait())
        bus.subscribe("jobs", got.handle)
        await bus.publish("jobs", "first", key="k", priority=50)
        await got.wait(1)
        await bus.publish("jobs", "relaxed", key="k", priority=90)
        await bus.publish("jobs", "urgent", key="k", priority=10)
        gate.set()
        await got.wait(3)
        assert got.payloads == ["first", "urgent", "relaxed"]
