"""Cancellation at many await points: settled or redeliverable, and nothing leaks."""

import asyncio

import pytest

from neuralcore.testing import virtual
from neuralcore.testing.memory import MemoryTransport


class Slow(MemoryTransport):
    """Every call takes several turns of the loop before it happens, and several after."""

    async def commit(self, publishes, settlements=()):
        await turns(3)
        result = await super().commit(publishes, settlements)
        await turns(3)
        return result

    async def consume(self, group):
        consumer = await super().consume(group)
        fetch = consumer.fetch

        async def slow_fetch(demand, timeout):
            await turns(2)
            return await fetch(demand, timeout)

        consumer.fetch = slow_fetch
        return consumer


async def turns(count):
    for _ in range(count):
        await asyncio.sleep(0)


async def cancelled_after(count, work):
    """Run it as a task, and cancel that after so many turns; whether it was done before."""
    task = asyncio.ensure_future(work)
    await turns(count)
    done = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return done


@virtual
@pytest.mark.parametrize("count", range(25))
async def test_a_publish_cancelled_anywhere_happened_once_or_not_at_all(town, count):
    bus, seen = await town.bus(Slow(town.store)), []
    await bus.subscribe("jobs", lambda m: seen.append(m.payload), group="g", blocking=False).ready()
    returned = await cancelled_after(count, bus.publish("jobs", "x"))
    await bus.publish("jobs", "after")
    await town.eventually(lambda: "after" in seen and town.stats().depth == 0)
    assert seen.count("x") <= 1
    assert seen.count("x") == 1 or not returned
    await town.close()


@virtual
@pytest.mark.parametrize("count", range(0, 40, 2))
async def test_settling_cancelled_anywhere_settles_or_redelivers(town, count):
    bus, seen = await town.bus(Slow(town.store)), []
    await bus.publish("jobs", "x")
    stream = bus.stream("jobs", group="g")

    async def pull():
        message = await anext(aiter(stream))
        seen.append(message.attempt)
        await message.ack()

    await cancelled_after(count, pull())
    await stream.close()
    other = await town.bus()
    again = []
    await other.subscribe("jobs", lambda m: again.append(m.attempt), group="g", blocking=False).ready()
    await town.eventually(lambda: town.stats().depth == 0)
    assert len(seen) + len(again) >= 1
    assert set(seen) | set(again) == {1}
    await town.close()


@virtual
@pytest.mark.parametrize("count", range(0, 40, 2))
async def test_unsubscribing_cancelled_anywhere_loses_nothing(town, count):
    bus, seen = await town.bus(Slow(town.store)), []

    async def handler(message):
        await turns(5)
        seen.append(message.payload)

    subscription = bus.subscribe("jobs", handler, group="g", concurrency=2)
    await subscription.ready()
    await bus.publish_many([("jobs", number) for number in range(20)])
    await cancelled_after(count, subscription.unsubscribe())
    await bus.close()
    other = await town.bus()
    await other.subscribe("jobs", lambda m: seen.append(m.payload), group="g", blocking=False).ready()
    await town.eventually(lambda: town.stats().depth == 0)
    assert set(seen) == set(range(20))
    assert town.stats().in_flight == 0
    await town.close()


@virtual
@pytest.mark.parametrize("count", range(0, 60, 4))
async def test_a_handlers_task_cancelled_anywhere_leaves_its_message_settled_or_redeliverable(town, count):
    bus, seen = await town.bus(Slow(town.store)), []
    started = asyncio.Event()

    async def handler(message):
        seen.append(message.attempt)
        started.set()
        await turns(8)

    subscription = bus.subscribe("jobs", handler, group="g")
    await subscription.ready()
    await bus.publish("jobs", "x")
    await started.wait()
    await turns(count)
    for task in list(subscription.workers._tasks):
        task.cancel()
    await town.eventually(lambda: town.stats().depth == 0)
    assert seen in ([1], [1, 2])
    await bus.publish("jobs", "y")
    await town.eventually(lambda: town.stats().depth == 0)
    await town.close()


@virtual
@pytest.mark.parametrize("count", range(0, 60, 4))
async def test_a_bus_whose_closing_is_cancelled_closes_all_the_same(town, count):
    bus, seen = await town.bus(Slow(town.store)), []

    async def handler(message):
        await turns(5)
        seen.append(message.payload)

    await bus.subscribe("jobs", handler, group="g").ready()
    await bus.publish_many([("jobs", number) for number in range(5)])
    await cancelled_after(count, bus.close())
    await bus.close()
    assert town.stats().in_flight == 0
    other = await town.bus()
    await other.subscribe("jobs", lambda m: seen.append(m.payload), group="g", blocking=False).ready()
    await town.eventually(lambda: town.stats().depth == 0)
    assert sorted(seen) == list(range(5))
    await town.close()
