"""Full mailboxes on the native transport: overflow acts once, fan-out takes its slots in order, nothing deadlocks."""

from __future__ import annotations

import asyncio

import pytest

from neuralcore.messaging.errors import ChannelFull, WouldDeadlock
from neuralcore.messaging.retry import RetryPolicy
from neuralcore.testing import Recorder, idle, virtual, virtual_bus


class Held:
    """A subscription whose handler is held until ``gate`` opens."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.got = Recorder(lambda message: self.gate.wait())


async def publish(bus, channel, payload, **options):
    return await bus.publish(channel, payload, **options)


async def full(bus, channel, capacity, **options) -> Held:
    """Its handler holds message 0; messages 1 to capacity - 1 wait."""
    held = Held()
    bus.subscribe(channel, held.got.handle, group=f"of {channel}", capacity=capacity, **options)
    for n in range(capacity):
        await bus.publish(channel, n)
    await held.got.wait(1)
    return held


@virtual(seeds=3)
async def test_block_waits_in_the_order_of_the_publishers():
    async with virtual_bus() as bus:
        held = await full(bus, "jobs", 2)
        waiting = [asyncio.create_task(publish(bus, "jobs", n)) for n in range(2, 6)]
        await idle()
        assert not any(task.done() for task in waiting)
        assert bus.metrics().subscriptions[0].waiting == 4
        assert bus.queue_size("jobs") == 1
        held.gate.set()
        await asyncio.gather(*waiting)
        await held.got.wait(6)
        assert sorted(held.got.payloads) == list(range(6))


@virtual
async def test_drop_new_answers_none_and_counts():
    async with virtual_bus() as bus:
        held = await full(bus, "jobs", 3, overflow="drop_new")
        assert await bus.publish("jobs", "urgent", priority=0) is None
        assert bus.metrics().channels["jobs"].dropped == 1
        held.gate.set()
        await held.got.wait(3)
        assert held.got.payloads == [0, 1, 2]


@virtual
async def test_drop_old_drops_the_least_urgent_and_there_the_oldest():
    async with virtual_bus() as bus:
        held = Held()
        bus.subscribe("jobs", held.got.handle, capacity=5, overflow="drop_old")
        await bus.publish("jobs", "in flight", priority=200)
        await held.got.wait(1)
        for payload, priority in (("a", 100), ("b", 50), ("c", 100), ("d", 10)):
            await bus.publish("jobs", payload, priority=priority)
        assert await bus.publish("jobs", "e", priority=50) is not None
        assert await bus.publish("jobs", "f", priority=50) is not None
        held.gate.set()
        await held.got.wait(5)
        await idle()
        assert held.got.payloads == ["in flight", "d", "b", "e", "f"]
        assert bus.metrics().subscriptions[0].dropped == 2


@virtual
async def test_reject_raises_channel_full_with_the_message():
    async with virtual_bus() as bus:
        held = await full(bus, "jobs", 1, overflow="reject")
        with pytest.raises(ChannelFull) as caught:
            await bus.publish("jobs", "refused", priority=3, headers={"a": "b"})
        assert caught.value.channel == "jobs"
        message = caught.value.message
        assert (message.payload, message.priority, dict(message.headers)) == ("refused", 3, {"a": "b"})
        assert bus.metrics().channels["jobs"].refused == 1
        held.gate.set()


@virtual
async def test_fan_out_enters_only_when_it_has_all_its_slots_and_keeps_those_it_has():
    async with virtual_bus() as bus:
        first, second = Held(), Held()
        bus.subscribe("both.*", first.got.handle, capacity=2)
        bus.subscribe("both.x", second.got.handle, capacity=1)
        await bus.publish("both.x", "in flight everywhere")
        await first.got.wait(1)
        await second.got.wait(1)
        waits = asyncio.create_task(publish(bus, "both.x", "waits for the second"))
        await idle()
        assert not waits.done()
        assert bus.metrics().subscriptions[0].queued == 0, "it is in no mailbox before it is in all"
        with pytest.raises(ChannelFull):
            bus.publish_nowait("both.y", "the first's last slot is kept for it")
        second.gate.set()
        await waits
        await second.got.wait(2)
        first.gate.set()
        await first.got.wait(2)
        assert first.got.payloads == second.got.payloads == ["in flight everywhere", "waits for the second"]


@virtual
async def test_a_cancelled_fan_out_gives_its_slots_back():
    async with virtual_bus() as bus:
        first, second = Held(), Held()
        bus.subscribe("both.*", first.got.handle, capacity=2)
        bus.subscribe("both.x", second.got.handle, capacity=1)
        await bus.publish("both.x", 0)
        await idle()
        waits = asyncio.create_task(publish(bus, "both.x", "never"))
        await idle()
        waits.cancel()
        await idle()
        assert bus.publish_nowait("both.y", "the slot is free again") is not None
        first.gate.set()
        second.gate.set()
        await idle()
        assert first.got.payloads == [0, "the slot is free again"]
        assert second.got.payloads == [0]


@virtual
async def test_opposite_fan_outs_do_not_deadlock():
    async with virtual_bus() as bus:
        slow = Recorder(lambda message: asyncio.sleep(0.01))
        bus.subscribe("a.*", slow.handle, capacity=1)
        bus.subscribe("*.b", slow.handle, capacity=1)
        await asyncio.gather(*(publish(bus, "a.b", n) for n in range(50)))
        await slow.wait(100)
        assert sorted(slow.payloads) == sorted([*range(50)] * 2)


@virtual
async def test_one_policy_drops_while_another_mailbox_takes_it():
    async with virtual_bus() as bus:
        dropping, taking = Held(), Held()
        bus.subscribe("news", dropping.got.handle, capacity=1, overflow="drop_new")
        bus.subscribe("news", taking.got.handle, capacity=10)
        await bus.publish("news", 0)
        await idle()
        assert await bus.publish("news", 1) is not None
        dropping.gate.set()
        taking.gate.set()
        await idle()
        assert (dropping.got.payloads, taking.got.payloads) == ([0], [0, 1])


@virtual
async def test_messages_in_flight_and_delayed_keep_their_slot():
    async with virtual_bus() as bus:

        async def fail_once(message):
            if message.attempt == 1:
                raise RuntimeError("on purpose")

        got = Recorder(fail_once)
        policy = RetryPolicy(base=10.0, jitter=False)
        bus.subscribe("jobs", got.handle, capacity=1, overflow="drop_new", retry=policy)
        await bus.publish("jobs", "retried")
        await got.wait(1)
        await idle()
        assert await bus.publish("jobs", "dropped") is None, "the one that waits for its retry has the slot"
        await got.wait(2)
        await idle()
        assert await bus.publish("jobs", "delayed", delay=5.0) is not None
        assert await bus.publish("jobs", "dropped") is None, "a delayed one has the slot"
        await got.wait(4)
        assert got.payloads == ["retried", "retried", "delayed", "delayed"]


@virtual
async def test_a_handler_that_fills_the_mailbox_it_alone_drains_gets_an_error():
    async with virtual_bus() as bus:
        errors = []

        async def republish(message):
            if message.payload == "seed":
                for n in range(2):
                    await bus.publish("loop", n)
                with pytest.raises(WouldDeadlock) as caught:
                    await bus.publish("loop", 2)
                errors.append(caught.value)

        got = Recorder(republish)
        bus.subscribe("loop", got.handle, capacity=3)
        await bus.publish("loop", "seed")
        await got.wait(3)
        await idle()
        assert got.payloads == ["seed", 0, 1]
        assert [error.message.payload for error in errors] == [2]


@virtual
async def test_a_cancelled_publish_that_waited_has_not_happened_and_leaves_no_hole():
    async with virtual_bus() as bus:
        held = await full(bus, "jobs", 2)
        waiting = [asyncio.create_task(publish(bus, "jobs", 10 + n)) for n in range(5)]
        await idle()
        for task in waiting[::2]:
            task.cancel()
        await idle()
        held.gate.set()
        await asyncio.gather(*waiting[1::2])
        await idle()
        assert held.got.payloads == [0, 1, 11, 13]
        stats = bus.metrics().subscriptions[0]
        assert (stats.queued, stats.in_flight, stats.waiting) == (0, 0, 0)
        for n in range(2):
            assert bus.publish_nowait("jobs", n) is not None


@virtual
async def test_publish_nowait_refuses_where_publish_would_wait():
    async with virtual_bus() as bus:
        held = await full(bus, "jobs", 1)
        with pytest.raises(ChannelFull):
            bus.publish_nowait("jobs", 1)
        held.gate.set()


@virtual
async def test_a_live_change_of_capacity_lets_waiting_publishers_in():
    async with virtual_bus() as bus:
        bus.create_channel("jobs", capacity=1)
        held = Held()
        bus.subscribe("jobs", held.got.handle)
        await bus.publish("jobs", 0)
        await held.got.wait(1)
        waiting = asyncio.create_task(publish(bus, "jobs", 1))
        await idle()
        assert not waiting.done()
        bus.create_channel("jobs", capacity=5)
        await waiting
        assert held.got.payloads == [0]
        held.gate.set()
        await held.got.wait(2)


@virtual
async def test_unsubscribing_the_full_subscriber_lets_the_publisher_go_on():
    async with virtual_bus() as bus:
        held = Held()
        subscription = bus.subscribe("jobs", held.got.handle, capacity=1)
        other = Recorder()
        bus.subscribe("jobs", other.handle, capacity=10)
        await bus.publish("jobs", 0)
        await idle()
        waiting = asyncio.create_task(publish(bus, "jobs", 1))
        await idle()
        assert not waiting.done()
        await subscription.unsubscribe(drain=False, timeout=1.0)
        await waiting
        await other.wait(2)
