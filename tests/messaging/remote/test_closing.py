"""Closing a bus that sits on a transport."""

import asyncio

import pytest

from neuralcore.messaging.errors import Closed
from neuralcore.messaging.transport import Delivery, Envelope
from neuralcore.testing import virtual
from neuralcore.testing.memory import MemoryTransport


@virtual
async def test_draining_finishes_what_is_in_flight_and_settles_it(town):
    bus, seen = await town.bus(), []

    async def handler(message):
        await asyncio.sleep(2)
        seen.append(message.payload)

    await bus.subscribe("jobs", handler, group="g", concurrency=3).ready()
    await bus.publish_many([("jobs", number) for number in range(10)])
    await asyncio.sleep(1)
    report = await bus.close()
    assert (report.drained, report.handled, report.released, report.abandoned) == (True, 3, 0, 0)
    assert sorted(seen) == [0, 1, 2]
    assert (town.stats().in_flight, town.stats().lag) == (0, {"g": 7})


@virtual
async def test_past_the_deadline_the_rest_is_released_untouched(town):
    bus, other = await town.bus(), await town.bus()
    cancelled = []

    async def handler(message):
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            cancelled.append(message.payload)
            raise

    await bus.subscribe("jobs", handler, group="g", concurrency=2).ready()
    await bus.publish_many([("jobs", number) for number in range(2)])
    await asyncio.sleep(1)
    before = town.loop.time()
    report = await bus.close(timeout=5)
    assert town.loop.time() - before == pytest.approx(5, abs=0.1)
    assert not report.drained
    assert report.released == 2
    assert sorted(cancelled) == [0, 1]
    seen = []
    await other.subscribe("jobs", seen.append, group="g", blocking=False).ready()
    await town.eventually(lambda: len(seen) == 2)
    assert [(message.attempt, message.delivery.suspect) for message in seen] == [(1, False)] * 2
    await town.close()


@virtual
async def test_a_closing_bus_lets_running_handlers_publish_and_refuses_others(town):
    bus = await town.bus()
    ready = asyncio.Event()

    async def handler(message):
        ready.set()
        await asyncio.sleep(2)
        await bus.publish("results", message.payload)

    await bus.subscribe("jobs", handler, group="g").ready()
    await bus.publish("jobs", "x")
    await ready.wait()
    closing = asyncio.ensure_future(bus.close())
    await asyncio.sleep(1)
    with pytest.raises(Closed):
        await bus.publish("jobs", "late")
    assert (await closing).drained
    assert len(town.browse("results")) == 1


@virtual
async def test_closing_ends_although_the_store_never_answers(town, relay_on):
    relay = relay_on(town.store)
    bus = await town.bus(relay)
    await bus.subscribe("jobs", lambda m: None, group="g", blocking=False).ready()
    await bus.publish("jobs", 1)
    relay.refuse = ConnectionResetError("gone for good")
    await bus.subscribe("other", lambda m: asyncio.sleep(100), group="g").ready()
    with pytest.raises(Exception, match="it is not known"):
        await bus.publish("other", 1)
    before = town.loop.time()
    await bus.close(timeout=3)
    assert town.loop.time() - before < 60


@virtual
async def test_closing_ends_although_a_commit_hangs(town, relay_on):
    relay = relay_on(town.store)
    bus = await town.bus(relay)
    relay.gate.clear()
    hanging = asyncio.ensure_future(bus.publish("jobs", 1))
    await town.loop.idle()
    await bus.close(timeout=1)
    with pytest.raises(Exception, match="it is not known"):
        await hanging


@virtual
async def test_publishers_that_wait_for_room_are_refused_when_the_bus_ends(town):
    bus = await town.bus()
    bus.create_channel("tiny", capacity=1)
    await bus.publish("tiny", 1)
    stuck = asyncio.ensure_future(bus.publish("tiny", 2))
    await asyncio.sleep(1)
    await bus.close()
    with pytest.raises(Closed):
        await stuck


@virtual
async def test_a_killed_client_can_still_be_closed(town):
    from neuralcore.testing.memory import MemoryTransport

    transport = MemoryTransport(town.store)
    bus = await town.bus(transport)
    await bus.subscribe("jobs", lambda m: asyncio.sleep(100), group="g").ready()
    await bus.publish("jobs", 1)
    await asyncio.sleep(0.1)
    transport.kill()
    before = town.loop.time()
    report = await bus.close(timeout=1)
    assert not report.drained
    assert town.loop.time() - before < 60
    await asyncio.sleep(10)
    assert town.stats().in_flight == 0


@virtual(seeds=5)
async def test_nothing_acknowledged_is_lost_over_a_hundred_restarts(town):
    town = type(town)()
    publisher, seen = await town.bus(), []
    await publisher.publish_many([("jobs", number, None, {"key": f"k{number % 3}"}) for number in range(300)])

    async def handler(message):
        await asyncio.sleep(0.1)
        seen.append(message.payload)

    for _ in range(100):
        bus = await town.bus()
        await bus.subscribe("jobs", handler, group="g", concurrency=4).ready()
        await asyncio.sleep(0.17)
        report = await bus.close(timeout=0.05)
        assert report.abandoned == 0
        if town.stats().depth == 0:
            break
    assert sorted(set(seen)) == list(range(300))
    for remainder in range(3):
        mine = [payload for payload in dict.fromkeys(seen) if payload % 3 == remainder]
        assert mine == sorted(mine)
    await town.close()


@virtual
async def test_what_streams_held_and_give_back_is_reported_as_released(town):
    bus = await town.bus()
    stream = bus.stream("jobs", group="g")
    earlier = bus.stream("jobs", group="other", start="beginning")
    await bus.publish_many([("jobs", number) for number in range(5)])
    await anext(earlier)
    await earlier.close()
    held = [await anext(stream) for _ in range(2)]
    await held.pop().ack()
    await asyncio.sleep(1)
    in_flight = town.stats().in_flight
    assert in_flight >= len(held)
    report = await bus.close(timeout=1)
    assert (report.drained, report.released, report.abandoned) == (False, in_flight, 0)
    assert (town.stats().in_flight, town.stats().lag["g"]) == (0, 4)
    assert bus.metrics().dropped == 0


@virtual
async def test_suspects_that_wait_for_their_turn_are_released_and_not_less_than_nothing_abandoned(town):
    dying = MemoryTransport(town.store)
    first = await town.bus(dying)
    forever = asyncio.Event()

    async def handler(message):
        await forever.wait()

    await first.subscribe("jobs", handler, group="g", concurrency=4).ready()
    await first.publish_many([("jobs", number) for number in range(4)])
    await asyncio.sleep(0.1)
    dying.kill()
    second = await town.bus()
    await second.subscribe("jobs", handler, group="g", concurrency=4).ready()
    await town.eventually(lambda: town.stats().in_flight == 4 and second.metrics().in_flight == 1)
    report = await second.close(timeout=1)
    assert (report.released, report.abandoned, report.interrupted) == (4, 0, 1)
    await first.close(drain=False)


@virtual
@pytest.mark.parametrize("verb", ["stream", "bus"])
async def test_a_stream_whose_leases_were_lost_holds_nothing_up(town, verb):
    transport = MemoryTransport(town.store)
    bus = await town.bus(transport)
    stream = bus.stream("jobs", group="g")
    await bus.publish_many([("jobs", number) for number in range(3)])
    held = [await anext(stream) for _ in range(3)]
    bus._link.lost([message.delivery for message in held[:2]])
    await (stream if verb == "stream" else bus).close()
    other, seen = await town.bus(), []
    await other.subscribe("jobs", lambda m: seen.append(m.payload), group="g", blocking=False).ready()
    await town.eventually(lambda: 2 in seen)
    await bus.close()
    assert not transport.running
    await town.close()


@virtual
@pytest.mark.parametrize("disturbed", [True, False])
async def test_what_a_broadcast_drains_outlives_the_lost_leases_of_others(town, disturbed):
    bus, seen = await town.bus(), []

    async def handler(message):
        await asyncio.sleep(0 if message.payload < 20 else 1)
        seen.append(message.payload)

    subscription = bus.subscribe("news", handler, broadcast=True)
    await subscription.ready()
    await bus.publish_many([("news", number) for number in range(60)])
    await asyncio.sleep(2.5)
    waiting, before = len(subscription.settlement.holding), len(seen)
    assert waiting > 5
    ending = asyncio.ensure_future(subscription.unsubscribe(timeout=600.0))
    await asyncio.sleep(0.1)
    if disturbed:
        bus._link.lost([Delivery(envelope=Envelope(id="x", channel="other", body=b""), interest=99)])
    await ending
    assert len(seen) - before == waiting
    await town.close()


@virtual
async def test_news_of_channels_while_the_transport_closes_are_for_nobody(town, caplog):
    class Late(MemoryTransport):
        gone = False

        async def close(self):
            self.gone = True
            self._runtime.channels_changed()
            await asyncio.sleep(1)
            await super().close()

        async def channels(self):
            if self.gone:
                raise Closed("this transport")
            return await super().channels()

    bus = await town.bus(Late(town.store))
    await bus.close()
    assert not caplog.records
