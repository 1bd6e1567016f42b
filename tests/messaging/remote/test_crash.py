"""Processes that die with messages in their hands."""

import asyncio

from neuralcore.messaging import headers
from neuralcore.messaging.retry import RetryPolicy
from neuralcore.testing import virtual
from neuralcore.testing.memory import MemoryTransport


async def forever():
    await asyncio.Event().wait()


@virtual
async def test_a_poison_message_is_dead_lettered_after_max_attempts_and_one_crashes_and_its_neighbours_keep_attempt_1(
    town,
):
    policy, crashes, handled = RetryPolicy(max_attempts=3), 0, {}
    publisher = await town.bus()
    await publisher.publish("jobs", "poison", priority=0, message_id="poison")
    await publisher.publish_many([("jobs", number) for number in range(1000)])

    async def process():
        """It prefetches, lives until it meets the poison message, and dies of it."""
        transport = MemoryTransport(town.store)
        dead = asyncio.Event()

        async def handler(message):
            nonlocal crashes
            if message.payload == "poison":
                crashes += 1
                transport.kill()
                dead.set()
                await forever()
            handled.setdefault(message.payload, []).append(message.attempt)

        bus = await town.bus(transport, capacity=5000)
        await bus.subscribe("jobs", handler, group="g", retry=policy, concurrency=2).ready()
        return dead

    while True:
        dead = asyncio.ensure_future((await process()).wait())
        done = asyncio.ensure_future(town.eventually(lambda: town.stats().depth == 0))
        await asyncio.wait({dead, done}, return_when=asyncio.FIRST_COMPLETED)
        dead.cancel()
        if done.done():
            break
        done.cancel()
        await asyncio.sleep(10)
    assert crashes == policy.max_attempts + 1
    (letter,) = town.browse("_dlq.jobs")
    assert letter.headers[headers.DLQ_REASON] == "poison"
    assert letter.headers[headers.DLQ_ID] == "poison"
    assert letter.headers[headers.DLQ_ATTEMPTS] == str(policy.max_attempts + 1)
    assert sorted(handled) == list(range(1000))
    assert {attempt for attempts in handled.values() for attempt in attempts} == {1}
    await town.close()


@virtual
async def test_a_poisonous_request_is_answered_with_its_failure(town):
    requester = await town.bus()
    policy = RetryPolicy(max_attempts=1)

    async def process():
        transport = MemoryTransport(town.store)

        async def handler(message):
            transport.kill()
            await forever()

        bus = await town.bus(transport)
        await bus.subscribe("jobs", handler, group="g", retry=policy).ready()

    for _ in range(3):
        await process()
    asking = asyncio.ensure_future(requester.request("jobs", "poison", timeout=300))
    (outcome,) = await asyncio.gather(asking, return_exceptions=True)
    assert "killed every process" in str(outcome)
    await town.close()


async def abandoned(town, *payloads):
    """A client dies in the handlers of these."""
    dying = MemoryTransport(town.store)
    bus = await town.bus(dying)
    await bus.subscribe("jobs", lambda message: forever(), group="g", concurrency=len(payloads)).ready()
    for payload in payloads:
        await bus.publish("jobs", payload, message_id=f"m{payload}")
    await asyncio.sleep(0.1)
    dying.kill()


@virtual
async def test_suspects_are_handled_one_at_a_time_and_others_beside_them(town):
    await abandoned(town, *range(4))

    second = await town.bus()
    running, most, seen = set(), 0, []

    async def handler(message):
        nonlocal most
        suspect = message.delivery.suspect
        if suspect:
            running.add(message.id)
            most = max(most, len(running))
        seen.append((suspect, message.payload))
        await asyncio.sleep(1)
        running.discard(message.id)

    await second.subscribe("jobs", handler, group="g", concurrency=4).ready()
    await asyncio.sleep(10.5)
    for number in range(4, 8):
        await second.publish("jobs", number)
    await town.eventually(lambda: len(seen) == 8 and not running)
    assert most == 1
    assert [payload for suspect, payload in seen if suspect] == [0, 1, 2, 3]
    assert [payload for suspect, payload in seen if not suspect] == [4, 5, 6, 7]
    await town.close()


@virtual
async def test_a_suspects_attempt_is_stored_before_its_handler_is_called(town, relay_on):
    await abandoned(town, 1)

    relay = relay_on(town.store)
    second = await town.bus(relay)
    seen = []

    async def handler(message):
        seen.append(list(relay.settled))

    await second.subscribe("jobs", handler, group="g").ready()
    await town.eventually(lambda: town.stats().depth == 0)
    assert seen == [[("attempt", "m1")]]
    assert relay.settled == [("attempt", "m1"), ("ack", "m1")]
    await town.close()


@virtual
async def test_a_suspect_whose_attempt_nobody_confirms_is_not_handled_by_a_bus_that_closes(town, relay_on):
    """It might end this process, and nobody would have counted that."""
    await abandoned(town, 1)

    relay = relay_on(town.store)
    second = await town.bus(relay)
    here, elsewhere = [], []
    await second.subscribe("jobs", here.append, group="g", blocking=False).ready()
    relay.refuse = ConnectionResetError("nobody answers")
    await asyncio.sleep(12)
    await second.close(timeout=30)
    assert here == []

    third = await town.bus()
    await third.subscribe("jobs", elsewhere.append, group="g", blocking=False).ready()
    await town.eventually(lambda: town.stats().depth == 0)
    assert [message.attempt for message in elsewhere] == [1]
    await town.close()


@virtual
async def test_a_suspect_whose_lease_is_lost_before_its_handler_is_not_handled_here(town, relay_on):
    await abandoned(town, 1)

    relay = relay_on(town.store)
    second = await town.bus(relay)
    here, elsewhere = [], []
    await second.subscribe("jobs", here.append, group="g", blocking=False).ready()
    relay.gate.clear()
    await asyncio.sleep(12)
    relay.freeze()
    third = await town.bus()
    await third.subscribe("jobs", elsewhere.append, group="g", blocking=False).ready()
    await asyncio.sleep(12)
    relay.thaw()
    relay.gate.set()
    await town.eventually(lambda: town.stats().depth == 0)
    assert (len(here), len(elsewhere)) == (0, 1)
    await town.close()


@virtual
async def test_a_late_ack_is_harmless_and_an_explicit_one_says_so(town):
    from neuralcore.messaging.errors import LeaseLost

    transport = MemoryTransport(town.store)
    slow, quick = await town.bus(transport), await town.bus()
    told, flags = [], []

    async def sleepy(message):
        transport.freeze()
        await asyncio.sleep(30)
        transport.thaw()
        await asyncio.sleep(0.1)
        flags.append(message.lease_lost)
        try:
            await message.ack()
        except LeaseLost as error:
            told.append(error)

    await slow.subscribe("jobs", sleepy, group="g").ready()
    await slow.publish("jobs", 1)
    await asyncio.sleep(1)
    handled = []
    await quick.subscribe("jobs", handled.append, group="g", blocking=False).ready()
    await town.eventually(lambda: flags and handled)
    assert flags == [True]
    assert len(told) == 1
    assert [message.attempt for message in handled] == [1]
    assert town.stats().depth == 0
    assert slow.metrics().transport["leases_lost"] == 1
    await town.close()


@virtual
async def test_unsubscribing_gives_waiting_suspects_back_and_drains_the_rest(town):
    await abandoned(town, *range(5))
    second, seen = await town.bus(), []

    async def handler(message):
        await asyncio.sleep(1)
        seen.append(message.payload)

    subscription = second.subscribe("jobs", handler, group="g", concurrency=5)
    await subscription.ready()
    await town.eventually(lambda: town.stats().in_flight == 5 and second.metrics().subscriptions[0].in_flight == 1)
    await subscription.unsubscribe()
    assert seen == [0]
    assert (town.stats().in_flight, town.stats().lag) == (0, {"g": 4})
    await town.close()


@virtual
async def test_a_handler_learns_that_its_lease_was_lost_though_its_message_was_moved(town):
    """A lost neighbour makes the mailbox give back its other messages, and take them in again."""
    transport = MemoryTransport(town.store)
    bus, flags = await town.bus(transport), {}
    steps = {"slow": asyncio.Event(), "moved": asyncio.Event()}

    async def handler(message):
        if message.payload in steps:
            await steps[message.payload].wait()
            flags[message.payload] = message.lease_lost

    subscription = bus.subscribe("jobs", handler, group="g")
    await subscription.ready()
    await bus.publish_many([("jobs", number) for number in range(20)])
    await town.eventually(lambda: town.stats().depth == 0)
    await bus.publish_many([("jobs", "slow"), ("jobs", "lost"), ("jobs", "moved")])
    await town.eventually(lambda: bus.queue_size("jobs") == 2)
    held = {message.payload: delivery for delivery, message in subscription.settlement.holding._messages.items()}
    lost, moved = (next(d for d in held.values() if d.envelope.body == body) for body in (b"lost", b"moved"))
    bus._link.lost([lost])
    assert bus.queue_size("jobs") == 1
    steps["slow"].set()
    await town.eventually(lambda: bus.queue_size("jobs") == 0)
    bus._link.lost([moved])
    steps["moved"].set()
    await town.eventually(lambda: "moved" in flags)
    assert flags == {"slow": False, "moved": True}
    await bus.close(drain=False)


@virtual
async def test_deliveries_that_were_lost_while_they_waited_are_dropped(town):
    transport = MemoryTransport(town.store)
    here, elsewhere = await town.bus(transport), await town.bus()
    seen, rest = [], []

    async def handler(message):
        seen.append(message.payload)
        if message.payload == "slow":
            await asyncio.sleep(100)

    await here.subscribe("jobs", handler, group="g").ready()
    for number in range(20):
        await here.publish("jobs", number)
    await town.eventually(lambda: len(seen) == 20)
    await here.publish_many([("jobs", "slow"), *(("jobs", f"waiting {number}") for number in range(5))])
    await town.eventually(lambda: here.queue_size("jobs") == 5)
    transport.freeze()
    await elsewhere.subscribe("jobs", lambda message: rest.append(message.payload), group="g", blocking=False).ready()
    await asyncio.sleep(15)
    transport.thaw()
    await asyncio.sleep(0.1)
    assert here.queue_size("jobs") == 0
    await town.eventually(lambda: town.stats().depth == 0)
    assert rest == ["slow", *(f"waiting {number}" for number in range(5))]
    assert seen[20:] == ["slow"]
    await town.close()


@virtual
async def test_suspects_that_wait_for_their_turn_go_back_when_their_place_is_revoked(town, relay_on):
    publisher = await town.bus()
    dying = MemoryTransport(town.store)
    killed = asyncio.Event()

    async def die(_):
        await asyncio.sleep(1)
        dying.kill()
        killed.set()
        await forever()

    victim = await town.bus(dying)
    await victim.subscribe("jobs", die, group="g", concurrency=2).ready()
    await publisher.publish_many([("jobs", number) for number in range(2)])
    await killed.wait()

    heir, begun = relay_on(town.store), []

    async def handle(message):
        begun.append(message.id)
        await forever()

    bus = await town.bus(heir)
    await bus.subscribe("jobs", handle, group="g", concurrency=2).ready()
    await town.eventually(lambda: begun and town.stats().in_flight == 2)
    held = [delivery for intake in bus._link._intakes for delivery in intake.settlement.holding._messages]
    assert len(held) == 2
    (waiting,) = [delivery for delivery in held if delivery.envelope.id not in begun]
    heir._runtime.revoking(held, 0)
    await town.eventually(lambda: ("release", waiting.envelope.id) in heir.settled)
    assert begun == [next(delivery.envelope.id for delivery in held if delivery is not waiting)]
    await town.close()
