"""A handler that ends its own subscription, and what an ended subscription leaves in the metrics."""

from __future__ import annotations

import asyncio

import pytest

from neuralcore.messaging.errors import BusError
from neuralcore.testing import Recorder, idle, virtual, virtual_bus
from neuralcore.testing.bus import bus_in

BOTH = pytest.mark.parametrize("url", ["native://", "memory://"])


def leaving(bus, pattern="jobs", *, drain=True, **options):
    """A subscription that its handler ends with the first message, which takes a second; and who did what, when."""
    loop = asyncio.get_running_loop()
    begun = []

    async def handle(message):
        begun.append(message.payload)
        if message.payload == 0:
            before = loop.time()
            await subscription.unsubscribe(drain=drain, timeout=60.0)
            assert loop.time() == before, "it cannot wait for itself"
        await asyncio.sleep(1.0)
        begun.append("done")

    subscription = bus.subscribe(pattern, handle, **options)
    return subscription, begun


@pytest.mark.parametrize("concurrency", [1, 2])
@virtual
async def test_what_waits_is_handled_after_a_handler_ended_its_own_subscription(concurrency):
    async with virtual_bus() as bus:
        subscription, begun = leaving(bus, group="g", concurrency=concurrency)
        await bus.publish_many([("jobs", n) for n in range(5)])
        await idle()
        assert not subscription.active
        await bus.publish("jobs", "too late")
        await asyncio.sleep(60)
        assert sorted(payload for payload in begun if payload != "done") == list(range(5))
        assert begun.count("done") == 5
        metrics = bus.metrics()
        assert (metrics.acked, metrics.depth, metrics.in_flight, metrics.dropped) == (5, 0, 0, 0)
        assert len(list(bus._intakes)) == 0


@virtual
async def test_on_a_store_what_waits_is_handled_or_stays_with_its_group():
    async with virtual_bus("memory://") as bus:
        subscription, begun = leaving(bus, group="g")
        await subscription.ready()
        await bus.publish_many([("jobs", n) for n in range(5)])
        await asyncio.sleep(60)
        other = Recorder()
        await bus.subscribe("jobs", other.handle, group="g").ready()
        await asyncio.sleep(60)
        assert sorted([*(payload for payload in begun if payload != "done"), *other.payloads]) == list(range(5))


@virtual
async def test_closing_waits_for_what_such_a_handler_left():
    bus = bus_in(asyncio.get_running_loop())
    await bus.start()
    _, begun = leaving(bus)
    await bus.publish_many([("jobs", n) for n in range(5)])
    await idle()
    report = await bus.close(timeout=60.0)
    assert begun.count("done") == 5
    assert (report.drained, report.handled, report.abandoned, report.interrupted) == (True, 5, 0, 0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@virtual
async def test_the_deadline_of_closing_cuts_it_short_and_says_so():
    bus = bus_in(asyncio.get_running_loop())
    await bus.start()
    _, begun = leaving(bus)
    await bus.publish_many([("jobs", n) for n in range(5)])
    await idle()
    report = await bus.close(timeout=2.5)
    assert begun.count("done") == 2
    assert (report.drained, report.handled, report.abandoned, report.interrupted) == (False, 2, 3, 1)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@virtual
async def test_an_end_whose_caller_is_cancelled_goes_on():
    async with virtual_bus() as bus:
        got = Recorder(lambda message: asyncio.sleep(1.0))
        subscription = bus.subscribe("jobs", got.handle)
        await bus.publish_many([("jobs", n) for n in range(5)])
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(subscription.unsubscribe(timeout=60.0), 1.5)
        await asyncio.sleep(60)
        assert got.payloads == list(range(5))
        assert len(list(bus._intakes)) == 0


@virtual
async def test_a_handler_that_waits_for_the_end_in_another_task_waits_in_vain_but_loses_nothing():
    seen = []

    async def handle(message):
        if message.payload == 0:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.create_task(subscription.unsubscribe(timeout=60.0)), 2.0)
        seen.append(message.payload)

    async with virtual_bus() as bus:
        subscription = bus.subscribe("jobs", handle)
        await bus.publish_many([("jobs", n) for n in range(5)])
        await asyncio.sleep(60)
        assert seen == list(range(5))


@BOTH
@virtual
async def test_without_drain_its_own_handler_ends_as_usual(url):
    async with virtual_bus(url) as bus:
        subscription, begun = leaving(bus, drain=False, group="g")
        await subscription.ready()
        await bus.publish_many([("jobs", n) for n in range(3)])
        await asyncio.sleep(60)
        assert begun == [0, "done"]
        assert bus.metrics().acked == 1


@virtual
async def test_other_members_go_on():
    async with virtual_bus() as bus:
        other = Recorder(lambda message: asyncio.sleep(1.0))
        _, begun = leaving(bus, group="g")
        await bus.publish("jobs", 0)
        bus.subscribe("jobs", other.handle, group="g")
        await bus.publish_many([("jobs", n) for n in range(1, 4)])
        await asyncio.sleep(60)
        assert begun == [0, "done"]
        assert other.payloads == [1, 2, 3]


@virtual
async def test_closing_inside_such_a_handler_is_refused_still():
    raised = []

    async def handle(message):
        await subscription.unsubscribe()
        try:
            await bus.close()
        except BusError as error:
            raised.append(error)

    async with virtual_bus() as bus:
        subscription = bus.subscribe("jobs", handle)
        await bus.publish("jobs", 1)
        await idle()
        assert len(raised) == 1


@virtual
async def test_what_is_discarded_counts_as_dropped_and_no_gauge_stays():
    async with virtual_bus() as bus:
        held = Recorder(lambda message: asyncio.Event().wait())
        subscription = bus.subscribe("jobs", held.handle, group="g", name="held")
        await bus.publish_many([("jobs", n) for n in range(5)])
        await held.wait(1)
        await subscription.unsubscribe(drain=False)
        (ended,) = bus.metrics().subscriptions
        assert (ended.pattern, ended.group, ended.name) == ("jobs", "g", "")
        assert (ended.delivered, ended.released, ended.acked, ended.dropped) == (1, 1, 0, 5)
        assert (ended.capacity, ended.depth, ended.in_flight, ended.waiting) == (0, 0, 0, 0)
        assert not ended.depth_by_priority


@virtual
async def test_a_handler_that_resists_its_cancellation_is_counted_with_its_message():
    gate = asyncio.Event()

    async def stubborn(message):
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue

    bus = bus_in(asyncio.get_running_loop())
    await bus.start()
    bus.subscribe("jobs", stubborn)
    await bus.publish_many([("jobs", n) for n in range(2)])
    await idle()
    report = await bus.close(timeout=1.0)
    assert (report.drained, report.abandoned, report.interrupted) == (False, 2, 1)
    (ended,) = bus.metrics().subscriptions
    assert (ended.in_flight, ended.dropped) == (0, 2)
    gate.set()
