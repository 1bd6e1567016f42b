"""Many hosts on one store, by seed: they crash, stall and leave. Nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import logging
import random

import pytest

from neuralcore.messaging.errors import NeuralCoreError
from neuralcore.messaging.retry import RetryPolicy
from neuralcore.testing import run
from neuralcore.testing.bus import bus_in
from neuralcore.testing.history import History
from neuralcore.testing.memory import MemoryStore, MemoryTransport

POLICY = RetryPolicy(max_attempts=5, base=0.2, cap=2.0)
LEASE = 5.0


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="neuralcore")


class Host:
    """One process: a bus on the shared store that publishes and consumes until something happens to it."""

    def __init__(self, store, history, rng):
        self.transport = MemoryTransport(store)
        self.bus = bus_in(asyncio.get_running_loop(), self.transport, rng=rng)
        self.history = history
        self.rng = rng
        self.alive = True

    async def start(self):
        await self.bus.start()
        await self.bus.subscribe("jobs.*", self.handle, group="g", retry=POLICY, concurrency=3).ready()
        self.producer = asyncio.create_task(self.produce())

    async def handle(self, message):
        self.history.begin(message)
        await asyncio.sleep(self.rng.choice([0.0, 0.01, 0.2, 1.0]))
        if self.rng.random() < 0.15:
            raise RuntimeError("fails")
        if self.alive:
            self.history.finish(message)

    async def produce(self):
        while True:
            id = f"{self.rng.getrandbits(128):032x}"
            self.history.unknown.add(id)
            try:
                await self.bus.publish(f"jobs.{self.rng.randrange(3)}", 1, message_id=id)
            except NeuralCoreError:
                return
            self.history.published.add(id)
            self.history.unknown.discard(id)
            await asyncio.sleep(self.rng.random())

    async def end(self, how):
        self.producer.cancel()
        if how == "crash":
            self.alive = False
            self.transport.kill()
        try:
            await self.bus.close(drain=how == "drain", timeout=self.rng.choice([0.1, 5.0]))
        except NeuralCoreError:
            assert how == "crash"


async def simulate(seed, make=MemoryStore):
    rng = random.Random(seed)
    store, history = make(lease=LEASE), History()
    crashes = 0
    loop = asyncio.get_running_loop()
    undertaker = bus_in(loop, MemoryTransport(store))
    await undertaker.start()

    async def bury(message):
        history.bury(message)

    for number in range(3):
        await undertaker.subscribe(f"_dlq.jobs.{number}", bury, group="dead").ready()
    hosts = []
    for _ in range(4):
        hosts.append(Host(store, history, rng))
        await hosts[-1].start()
    for _ in range(12):
        await asyncio.sleep(rng.random() * 4)
        event = rng.choice(["crash", "drain", "leave", "stall", "jump"])
        if event == "stall":
            victim = rng.choice(hosts)
            victim.transport.freeze()
            await asyncio.sleep(rng.choice([0.5, 3 * LEASE]))
            victim.transport.thaw()
            crashes += 1
        elif event == "jump":
            loop.clock.jump(rng.choice([-3600, 3600]) * 10**9)
        else:
            victim = hosts.pop(rng.randrange(len(hosts)))
            await victim.end(event)
            crashes += event == "crash"
            hosts.append(Host(store, history, rng))
            await hosts[-1].start()
    for host in hosts:
        host.producer.cancel()
    await asyncio.sleep(120)
    for host in hosts:
        await host.end("drain")
    await undertaker.close()
    return history, crashes


def check(seed, make=MemoryStore):
    history, crashes = run(simulate(seed, make), seed=seed)
    told = f"seed {seed}: {history}, crashes {crashes}"
    assert not history.lost, told
    assert not history.phantoms, told
    assert len(history.published) > 50, told
    if not crashes:
        assert not history.repeated, told
        assert not history.undead, told


@pytest.mark.parametrize("seed", range(15))
def test_nothing_acknowledged_is_lost(seed):
    check(seed)


def test_a_run_repeats_by_its_seed():
    def once():
        history, _ = run(simulate(3), seed=3)
        return list(history.attempts.items())

    assert once() == once()
