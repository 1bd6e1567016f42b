"""How much a bus fetches, and what keeps it going."""

import asyncio
import random

import pytest

from neuralcore.messaging.errors import Unavailable
from neuralcore.messaging.transport import Demand
from neuralcore.testing import virtual
from neuralcore.testing.memory import MemoryTransport


class Flaky(MemoryTransport):
    """Its consumers fail now and then."""

    def __init__(self, store, rng):
        super().__init__(store)
        self.rng = rng
        self.fetches = 0
        self.demands = []

    async def consume(self, group):
        if self.rng.random() < 0.3:
            raise ConnectionResetError("consume")
        consumer = await super().consume(group)
        fetch, update = consumer.fetch, consumer.update

        async def flaky_fetch(demand, timeout):
            self.fetches += 1
            self.demands.append(dict(demand))
            if self.rng.random() < 0.3:
                raise ConnectionResetError("fetch")
            return await fetch(demand, timeout)

        async def flaky_update(interests):
            if self.rng.random() < 0.3:
                raise Unavailable("flaky", "update")
            await update(interests)

        consumer.fetch, consumer.update = flaky_fetch, flaky_update
        return consumer


class Calm(random.Random):
    """Nothing fails."""

    def random(self):
        return 1.0


async def full_window(town, bus):
    """Wait until only what is urgent would be fetched."""
    (intake,) = bus._intakes

    def only_urgent():
        return intake.settlement.holding.demand(intake).more_urgent_than is not None

    await town.eventually(lambda: bus.queue_size("jobs") > 20 and only_urgent())


@virtual
@pytest.mark.parametrize("seed", range(5))
async def test_a_transport_that_keeps_failing_never_stops_a_subscription(town, seed):
    transport = Flaky(town.store, random.Random(seed))
    bus, seen = await town.bus(transport), []
    await bus.subscribe("jobs", lambda m: seen.append(m.payload), group="g", blocking=False).ready()
    for number in range(50):
        await bus.publish("jobs", number)
        await asyncio.sleep(1)
    await town.eventually(lambda: len(seen) == 50)
    assert seen == list(range(50))
    assert bus.metrics().transport["reconnects"] > 0
    await town.close()


@virtual
@pytest.mark.parametrize(("work", "held"), [(10.0, 4), (0.5, 8), (0.01, 400), (0.0, 1000)])
async def test_prefetch_is_about_one_second_of_work_and_at_least_one_message_a_worker(town, work, held):
    bus = await town.bus()
    await bus.publish_many([("jobs", number) for number in range(5000)])
    most = 0

    async def handler(message):
        nonlocal most
        most = max(most, town.stats().in_flight)
        await asyncio.sleep(work)

    await bus.subscribe("jobs", handler, group="g", concurrency=4).ready()
    await asyncio.sleep(60 * work)
    await asyncio.sleep(1)
    assert held / 2 <= most <= held
    await town.close()


@virtual
@pytest.mark.parametrize("work", [5.0, 1.0, 0.1, 0.0])
@pytest.mark.parametrize(("options", "most"), [({}, 20), ({"concurrency": 2}, 20), ({"capacity": 7}, 7)], ids=str)
async def test_however_long_a_batch_takes_the_next_one_is_full(town, work, options, most):
    bus, sizes = await town.bus(), []
    await bus.publish_many([("jobs", number) for number in range(200)])

    async def handler(messages):
        sizes.append(len(messages))
        await asyncio.sleep(work)

    await bus.subscribe("jobs", handler, group="g", batch=20, **options).ready()
    await town.eventually(lambda: sum(sizes) == 200)
    assert max(sizes) == most
    assert len(sizes) <= 200 / most + 3
    await town.close()


@virtual
async def test_a_slow_handler_leaves_the_rest_to_other_members(town):
    slow, quick = await town.bus(), await town.bus()
    await slow.subscribe("jobs", lambda m: asyncio.sleep(1000), group="g").ready()
    await slow.publish_many([("jobs", number) for number in range(10)])
    await asyncio.sleep(0.1)
    seen = []
    await quick.subscribe("jobs", lambda m: seen.append(m.payload), group="g", blocking=False).ready()
    await asyncio.sleep(1)
    assert seen == list(range(1, 10))
    await town.close()


@virtual
async def test_an_urgent_message_gets_past_a_full_window(town):
    bus, seen = await town.bus(), []

    async def handler(message):
        seen.append(message.payload)
        await asyncio.sleep(0.02)

    await bus.subscribe("jobs", handler, group="g").ready()
    await bus.publish_many([("jobs", number, 75) for number in range(500)])
    await full_window(town, bus)
    held, before = town.stats().in_flight, len(seen)
    await bus.publish("jobs", "urgent", priority=0)
    await town.eventually(lambda: "urgent" in seen)
    assert seen.index("urgent") - before <= 2
    assert town.stats().in_flight <= held
    await town.eventually(lambda: town.stats().depth == 0)
    assert [payload for payload in seen if payload != "urgent"] == list(range(500))
    await town.close()


@virtual
async def test_what_a_full_mailbox_gives_back_counts_no_attempt(town, relay_on):
    relay = relay_on(town.store)
    bus, attempts = await town.bus(relay), []

    async def handler(message):
        attempts.append(message.attempt)
        await asyncio.sleep(0.02)

    await bus.subscribe("jobs", handler, group="g").ready()
    await bus.publish_many([("jobs", number, 75) for number in range(300)])
    await full_window(town, bus)
    await bus.publish_many([("jobs", number, 0) for number in range(10)])
    await town.eventually(lambda: town.stats().depth == 0)
    assert [outcome for outcome, _ in relay.settled].count("release") > 0
    assert (len(attempts), set(attempts)) == (310, {1})
    await town.close()


@virtual
async def test_many_subscriptions_of_a_group_share_a_consumer(town):
    consumers = []

    class Counting(MemoryTransport):
        async def consume(self, group):
            consumers.append(group.name)
            return await super().consume(group)

    bus, seen = await town.bus(Counting(town.store)), []
    for number in range(50):
        bus.subscribe(f"jobs.{number}", lambda m: seen.append(m.channel), group="g", blocking=False)
    for number in range(50):
        await bus.subscribe(f"news.{number}", lambda m: seen.append(m.channel), broadcast=True, blocking=False).ready()
    for number in range(50):
        await bus.publish(f"jobs.{number}", 1)
        await bus.publish(f"news.{number}", 1)
    await town.eventually(lambda: len(seen) == 100)
    assert sorted(consumers, key=str) == [None, "g"]
    await town.close()


@virtual
async def test_a_start_that_is_refused_is_told_to_its_subscriber_and_stops_nobody_else(town):
    bus, seen = await town.bus(), []
    await bus.publish("jobs", 0)
    await bus.subscribe("jobs", lambda m: seen.append(m.payload), group="g", blocking=False).ready()
    wrong = bus.subscribe("jobs", print, group="h", start="no such id", blocking=False)
    wrong_too = bus.subscribe("jobs.>", print, group="g", start="no such id", blocking=False)
    with pytest.raises(ValueError, match="no such id"):
        await wrong.ready()
    await bus.publish("jobs", 1)
    await town.eventually(lambda: seen == [0, 1])
    await wrong_too.ready()
    await town.close()


@virtual
async def test_a_paused_subscription_asks_for_nothing(town):
    transport = Flaky(town.store, Calm())
    bus = await town.bus(transport)
    await bus.subscribe("jobs", lambda m: asyncio.sleep(100), group="g").ready()
    await bus.publish_many([("jobs", number) for number in range(3)])
    await asyncio.sleep(50)
    fetches = transport.fetches
    await asyncio.sleep(40)
    assert transport.fetches == fetches
    assert all(demand == {1: Demand(1)} for demand in transport.demands)
    await town.close()


@virtual
async def test_unsubscribing_gives_back_what_no_handler_has(town):
    bus, other = await town.bus(), await town.bus()
    started = []

    async def handler(message):
        started.append(message.payload)
        await asyncio.sleep(0 if len(started) < 100 else 5)

    subscription = bus.subscribe("jobs", handler, group="g")
    await subscription.ready()
    await bus.publish_many([("jobs", number) for number in range(200)])
    await town.eventually(lambda: len(started) == 100 and bus.queue_size("jobs") > 10)
    await subscription.unsubscribe(drain=False)
    assert town.stats().in_flight == 0
    seen = []
    await other.subscribe("jobs", seen.append, group="g", blocking=False).ready()
    await town.eventually(lambda: town.stats().depth == 0)
    assert {message.attempt for message in seen} == {1}
    assert len(seen) == 101
    await town.close()


@virtual
async def test_who_pulls_may_collect_a_whole_mailbox_before_settling_any(town):
    bus = await town.bus(capacity=7)
    stream = bus.stream("jobs", group="g")
    await bus.publish_many([("jobs", number) for number in range(30)])
    (intake,) = bus._intakes
    held = []
    for _ in range(4):
        while len(held) < 7:
            held.append(await asyncio.wait_for(anext(stream), 5))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(anext(stream), 5)
        assert len(intake.settlement.holding) == town.stats().in_flight == 7
        for message in held[:3]:
            await message.ack()
        del held[:3]
    assert [message.payload for message in held] == list(range(12, 16))
    await stream.close()
    assert town.stats().in_flight == 0
    await town.close()


@virtual
async def test_a_stream_that_nobody_reads_fetches_no_more_than_a_worker_would(town):
    bus = await town.bus()
    stream = bus.stream("jobs", group="g")
    await bus.publish_many([("jobs", number) for number in range(30)])
    await asyncio.sleep(5)
    assert town.stats().in_flight == 1
    first = await anext(stream)
    await asyncio.sleep(5)
    assert town.stats().in_flight == 2
    await bus.publish("jobs", "urgent", priority=0)
    await asyncio.sleep(5)
    assert town.stats().in_flight == 2
    assert (await anext(stream)).payload == "urgent"
    await first.ack()
    await stream.close()
    await town.close()


@virtual
async def test_a_bus_that_waits_for_a_week_looks_into_the_store_now_and_then_only(town):
    transport = Flaky(town.store, Calm())
    bus, seen = await town.bus(transport), []
    await bus.subscribe("jobs", lambda m: seen.append(m.payload), group="g", blocking=False).ready()
    await bus.publish("jobs", "later", delay=7 * 86_400)
    await asyncio.sleep(7 * 86_400 - 1)
    assert seen == []
    await asyncio.sleep(2)
    assert seen == ["later"]
    assert transport.fetches < 100
    await town.close()
