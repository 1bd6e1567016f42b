"""Neither publishers nor pumps keep the loop from running."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest


class Ticker:
    """Counts how often the loop comes round."""

    def __init__(self):
        self.ticks = 0

    async def __aenter__(self):
        self._task = asyncio.create_task(self._tick())
        await asyncio.sleep(0)
        self.ticks = 0
        return self

    async def __aexit__(self, *error):
        self._task.cancel()

    async def _tick(self):
        while True:
            self.ticks += 1
            await asyncio.sleep(0)


@pytest.mark.parametrize("budget", [1, 7, 64, 256])
async def test_every_budget_th_awaited_publish_yields_once(make_rig, budget):
    rig = make_rig(budget=budget)
    mailbox = rig.mailbox("jobs", capacity=100_000)
    async with Ticker() as ticker:
        seen = []
        for _ in range(4 * budget):
            before = ticker.ticks
            await rig.publish("jobs", None)
            seen.append(ticker.ticks - before)
        assert sum(seen) == 4
        assert max(seen) == 1
        yields = [index for index, ticks in enumerate(seen) if ticks]
        assert {after - before for before, after in pairwise(yields)} == {budget}
    assert mailbox.depth() == 4 * budget


@pytest.mark.parametrize("options", [{"priority": 3}, {"headers": {"h": "v"}}, {"key": "k"}, {"delay": 5}])
async def test_publishes_with_options_count_too(make_rig, options):
    rig = make_rig(budget=10)
    rig.mailbox("jobs", capacity=1000)
    async with Ticker() as ticker:
        for _ in range(100):
            await rig.publish("jobs", None, **options)
        assert ticker.ticks == 10


async def test_publishes_to_nobody_count_too(make_rig):
    rig = make_rig(budget=10)
    async with Ticker() as ticker:
        for _ in range(100):
            await rig.publish("jobs", None)
        assert ticker.ticks == 10


@pytest.mark.parametrize("budget", [1, 10, 256])
async def test_a_pump_lets_the_loop_run_after_its_budget_of_messages(rig, soon, budget):
    mailbox = rig.mailbox("jobs", capacity=100_000)
    for _ in range(2560):
        rig.publish_nowait("jobs", None)
    mailbox.close()
    async with Ticker() as ticker:
        seen = []

        async def handler(message):
            seen.append(ticker.ticks)

        await soon(rig.start(mailbox, handler, budget=budget, slice_ns=0))
        longest = max(seen.count(tick) for tick in set(seen))
    assert longest <= budget
    assert len(set(seen)) >= 2560 // budget


async def test_a_pump_lets_the_loop_run_after_its_time_slice(rig, soon):
    mailbox = rig.mailbox("jobs", capacity=1000)
    for _ in range(50):
        rig.publish_nowait("jobs", None)
    mailbox.close()
    async with Ticker() as ticker:
        seen = []

        def handler(message):
            seen.append(ticker.ticks)
            until = time.perf_counter() + 0.002
            while time.perf_counter() < until:
                pass

        await soon(rig.start(mailbox, handler, slice_ns=1_000_000))
        assert len(set(seen)) >= 3


async def test_without_a_time_slice_only_the_budget_counts(rig, soon):
    mailbox = rig.mailbox("jobs", capacity=1000)
    for _ in range(50):
        rig.publish_nowait("jobs", None)
    mailbox.close()
    async with Ticker() as ticker:
        seen = []

        def handler(message):
            seen.append(ticker.ticks)
            until = time.perf_counter() + 0.0005
            while time.perf_counter() < until:
                pass

        await soon(rig.start(mailbox, handler, slice_ns=0))
        assert len(set(seen)) == 1


async def test_a_ticker_keeps_ticking_while_handlers_feed_their_own_mailbox(rig, soon):
    mailbox = rig.mailbox("jobs", capacity=1000)
    stop = False

    async def handler(message):
        if not stop:
            rig.publish_nowait("jobs", None)

    task = rig.start(mailbox, handler)
    rig.publish_nowait("jobs", None)
    async with Ticker() as ticker:
        while ticker.ticks < 20:
            await asyncio.sleep(0)
        stop = True
        mailbox.close()
        await soon(task)
    assert mailbox.stats().acked > 20


async def test_a_batch_counts_by_its_messages(rig, soon):
    mailbox = rig.mailbox("jobs", capacity=10_000)
    for _ in range(1000):
        rig.publish_nowait("jobs", None)
    mailbox.close()
    async with Ticker() as ticker:
        await soon(rig.start(mailbox, lambda messages: None, batch=10, budget=100, slice_ns=0))
        assert ticker.ticks >= 9


async def test_two_producers_and_a_consumer_make_progress_together(rig, soon):
    mailbox = rig.mailbox("jobs", capacity=10)
    counts = {"a": 0, "b": 0}

    async def produce(name):
        for _ in range(500):
            await rig.publish("jobs", name)

    async def handler(message):
        counts[message.payload] += 1

    task = rig.start(mailbox, handler)
    await soon(asyncio.gather(produce("a"), produce("b")))
    mailbox.close()
    await soon(task)
    assert counts == {"a": 500, "b": 500}
