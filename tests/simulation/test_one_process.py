"""One process under load, by seed: producers and consumers fail, are cancelled, come and go. Everything adds up."""

from __future__ import annotations

import asyncio
import logging
import random

import pytest

from neuralcore.messaging.errors import NeuralCoreError
from neuralcore.messaging.retry import Reject, Retry, RetryPolicy
from neuralcore.testing import Recorder, VirtualLoop, run
from neuralcore.testing.bus import virtual_bus
from neuralcore.testing.history import History

URLS = ["native://", "memory://"]
POLICY = RetryPolicy(max_attempts=4, base=0.2, cap=2.0)


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="neuralcore")


class Simulation:
    """A bus, one group on ``work.*``, a broadcast listener, and everything that can go wrong in a handler."""

    def __init__(self, bus, rng):
        self.bus = bus
        self.rng = rng
        self.history = History()
        self.running = {}
        self.keys = {}
        self.order = []

    async def handle(self, message):
        self.history.begin(message)
        self.check_key(message)
        self.running[asyncio.current_task()] = message.id
        try:
            await self.misbehave(message)
        finally:
            del self.running[asyncio.current_task()]
            self.keys.pop(message.key, None)
        self.history.finish(message)

    def check_key(self, message):
        if message.key is not None:
            assert message.key not in self.keys, f"{message.key} is handled twice at once"
            self.keys[message.key] = message.id
            self.order.append((message.key, message.priority, message.payload))

    async def misbehave(self, message):
        chance = self.rng.random()
        if chance < 0.5:
            await asyncio.sleep(self.rng.choice([0, 0, 0.001, 0.05, 0.3]))
        elif chance < 0.6:
            raise RuntimeError("fails")
        elif chance < 0.65:
            raise Retry(after=self.rng.random())
        elif chance < 0.68:
            raise Reject("rejected")
        elif chance < 0.72:
            await asyncio.Event().wait()

    async def produce(self, count):
        for _ in range(count):
            key = self.rng.choice([None, None, "k1", "k2", "k3"])
            task = asyncio.create_task(self.publish(key))
            if self.rng.random() < 0.1:
                for _ in range(self.rng.randrange(4)):
                    await asyncio.sleep(0)
                task.cancel()
            await asyncio.wait({task})
            if self.rng.random() < 0.3:
                await asyncio.sleep(self.rng.random() * 0.05)

    async def publish(self, key):
        id = f"{self.rng.getrandbits(128):032x}"
        self.history.unknown.add(id)
        options = {"priority": self.rng.choice([0, 50, 50, 100]), "key": key, "message_id": id}
        if self.rng.random() < 0.1:
            options["delay"] = self.rng.random()
        channel = self.rng.choice(["work.a", "work.b"])
        stored = await self.bus.publish(channel, len(self.history.unknown), **options)
        self.history.unknown.discard(id)
        if stored is not None:
            self.history.published.add(id)

    async def cancel_some(self):
        """Cancel handlers from outside, as a debugger or a careless library might."""
        while True:
            await asyncio.sleep(self.rng.random())
            if self.running:
                self.rng.choice(list(self.running)).cancel()

    async def come_and_go(self):
        while True:
            options = {"concurrency": self.rng.randrange(1, 4)}
            member = self.bus.subscribe("work.*", self.handle, group="g", retry=POLICY, timeout=1.0, **options)
            await asyncio.sleep(self.rng.random() * 2)
            await member.unsubscribe(drain=self.rng.random() < 0.5, timeout=5.0)


async def simulate(url, seed):
    rng = random.Random(seed)
    async with virtual_bus(url, capacity=20, rng=rng) as bus:
        simulation = Simulation(bus, rng)
        dead, listener = Recorder(simulation.history.bury), Recorder()
        for channel in ("_dlq.work.a", "_dlq.work.b"):
            await bus.subscribe(channel, dead.handle, group="dead").ready()
        await bus.subscribe("work.*", listener.handle, broadcast=True, capacity=10_000).ready()
        stays = bus.subscribe("work.*", simulation.handle, group="g", retry=POLICY, timeout=1.0)
        await stays.ready()
        trouble = [asyncio.create_task(simulation.cancel_some()), asyncio.create_task(simulation.come_and_go())]
        await asyncio.gather(*(simulation.produce(40) for _ in range(6)))
        for task in trouble:
            task.cancel()
        await asyncio.wait(trouble)
        await asyncio.sleep(300)
        stats = [group for group in bus.metrics().subscriptions if group.group == "g"]
    return simulation.history, listener, stats


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("seed", range(12))
def test_conservation(url, seed):
    history, listener, stats = run(simulate(url, seed), seed=seed)
    told = f"seed {seed}: {history}"
    assert not history.lost, told
    assert not history.phantoms, told
    assert not history.undead, told
    assert not history.repeated, told
    assert not history.backwards, told
    assert len(history.published) > 150, told
    assert len(history.dead) > 0, told
    heard = [message.id for message in listener.messages]
    assert len(heard) == len(set(heard)), told
    assert history.published <= set(heard) <= history.published | history.unknown, told
    for group in stats:
        assert (group.depth, group.in_flight, group.waiting) == (0, 0, 0), told


@pytest.mark.parametrize("url", URLS)
def test_a_run_repeats_by_its_seed(url):
    def once():
        history, listener, _ = run(simulate(url, 5), seed=5)
        return list(history.attempts.items()), [message.payload for message in listener.messages]

    assert once() == once()


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("seed", range(6))
def test_closing_under_load(url, seed):
    """Whatever runs when the bus closes: what was handled is not reported as given back, and the reverse."""

    async def main():
        rng = random.Random(seed)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        handled = []

        async def handle(message):
            await asyncio.sleep(rng.random())
            handled.append(message.id)

        async with virtual_bus(url, rng=rng) as bus:
            for _ in range(3):
                await bus.subscribe("work", handle, group="g", concurrency=rng.randrange(1, 4)).ready()
            published = set()

            async def produce():
                while True:
                    try:
                        published.add(await bus.publish("work", 1))
                    except NeuralCoreError:
                        return
                    await asyncio.sleep(rng.random() * 0.1)

            producers = [asyncio.create_task(produce()) for _ in range(5)]
            await asyncio.sleep(rng.random() * 5)
            before = len(handled)
            report = await bus.close(drain=rng.random() < 0.7, timeout=rng.choice([0.1, 1.0, 100.0]))
            await asyncio.wait(producers)
        assert len(handled) == len(set(handled))
        assert report.handled >= len(handled) - before
        if url == "native://":
            assert len(published) == len(handled) + report.abandoned, report
        else:
            assert report.abandoned == 0
            assert set(handled) <= published

    run(main(), seed=seed)
