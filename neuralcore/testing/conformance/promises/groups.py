"""Groups share their messages; broadcasts do not."""

from __future__ import annotations

from collections import Counter
from typing import Any

from neuralcore.testing.conformance.bed import Bed, Collector
from neuralcore.testing.conformance.errand import done
from neuralcore.testing.conformance.promise import expect, promise, same

MESSAGES = 60


def all_payloads(collectors: list[Collector]) -> list[Any]:
    return [payload for got in collectors for payload in got.payloads]


async def arrive(bed: Bed, collectors: list[Collector], wanted: int) -> None:
    """Each message to exactly one of the collectors."""
    common = bed.collector()
    for got in collectors:
        got.relay(common)
    await common.every(range(wanted))
    same(len(all_payloads(collectors)), wanted, "deliveries to the members together")


@promise("groups")
async def one_member(bed: Bed) -> None:
    """Each message goes to exactly one member of a group, on whichever client it is."""
    first, second, channel = await bed.bus(), await bed.bus(), bed.channel()
    members = [bed.collector() for _ in range(4)]
    group = bed.group()
    for bus, got in zip((first, second, first, second), members, strict=True):
        await bed.subscribe(bus, channel, got.handle, group=group)
    for n in range(MESSAGES):
        await first.publish(channel, n)
    await arrive(bed, members, MESSAGES)


@promise("groups")
async def every_group(bed: Bed) -> None:
    """Every group gets every message."""
    bus, channel = await bed.bus(), bed.channel()
    groups = [[bed.collector() for _ in range(2)] for _ in range(3)]
    for members in groups:
        group = bed.group()
        for got in members:
            await bed.subscribe(await bed.bus(), channel, got.handle, group=group)
    for n in range(MESSAGES):
        await bus.publish(channel, n)
    for members in groups:
        await arrive(bed, members, MESSAGES)


@promise("groups")
async def members_come_and_go(bed: Bed) -> None:
    """Members that join and leave in mid-stream lose nothing and repeat nothing."""
    bus, channel, group = await bed.bus(), bed.channel(), bed.group()
    members = [bed.collector() for _ in range(3)]
    stays = await bed.subscribe(bus, channel, members[0].handle, group=group)
    leaves = await bed.subscribe(bus, channel, members[1].handle, group=group)
    for n in range(MESSAGES):
        if n == MESSAGES // 3:
            await bed.within(leaves.unsubscribe(), "unsubscribing")
        if n == 2 * MESSAGES // 3:
            await bed.subscribe(bus, channel, members[2].handle, group=group)
        await bus.publish(channel, n)
    await arrive(bed, members, MESSAGES)
    await bed.within(stays.unsubscribe(), "unsubscribing")


@promise("broadcast")
async def broadcast(bed: Bed) -> None:
    """Every broadcast subscriber gets every message while it lives."""
    first, second, channel = await bed.bus(), await bed.bus(), bed.channel()
    listeners = [bed.collector() for _ in range(3)]
    subscriptions = [
        await bed.subscribe(bus, channel, got.handle, broadcast=True)
        for bus, got in zip((first, second, first), listeners, strict=True)
    ]
    for n in range(10):
        await second.publish(channel, n)
    for got in listeners:
        await got.every(range(10))
    await bed.within(subscriptions[1].unsubscribe(), "unsubscribing")
    await first.publish(channel, 10)
    await listeners[0].every(range(11))
    await listeners[2].every(range(11))
    same(len(listeners[1].messages), 10, "deliveries to one that had left")


@promise("groups", "broadcast")
async def both(bed: Bed) -> None:
    """A broadcast subscriber takes nothing away from a group."""
    bus, channel = await bed.bus(), bed.channel()
    listener, members = bed.collector(), [bed.collector(), bed.collector()]
    group = bed.group()
    await bed.subscribe(bus, channel, listener.handle, broadcast=True)
    for got in members:
        await bed.subscribe(bus, channel, got.handle, group=group)
    for n in range(MESSAGES):
        await bus.publish(channel, n)
    await listener.every(range(MESSAGES))
    await arrive(bed, members, MESSAGES)


@promise("groups", "shared_work")
async def work_is_shared(bed: Bed) -> None:
    """A member that is busy does not keep its messages from the idle ones."""
    bus, channel, group = await bed.bus(), bed.channel(), bed.group()
    gate = bed.gate()
    busy, idle = bed.collector(gate.wait), bed.collector()
    await bed.subscribe(bus, channel, busy.handle, group=group, capacity=4)
    await bus.publish(channel, 0)
    await busy.count(1)
    await bed.subscribe(await bed.bus(), channel, idle.handle, group=group, capacity=4)
    for n in range(1, 21):
        await bus.publish(channel, n)
    await idle.count(16, "deliveries to the idle member")
    gate.open()
    got = bed.collector()
    busy.relay(got)
    idle.relay(got)
    await got.every(range(21))
    shares = Counter({"busy": len(busy.messages), "idle": len(idle.messages)})
    expect(shares["busy"] <= 5, f"the busy member got {shares['busy']} messages")


@promise("groups", stores=True)
async def across_processes(bed: Bed) -> None:
    """Each message goes to exactly one of the processes that share a group, also while more of them join."""
    bus, channel, group, receipts = await bed.bus(), bed.channel(), bed.group(), bed.collector()
    names = [f"quick-{n}" for n in range(3 * MESSAGES)]
    await bed.subscribe(bus, done(channel), receipts.handle)
    for begin in range(0, len(names), MESSAGES):
        await bed.spawn(channel, group, concurrency=2)
        await bus.publish_many([(channel, name) for name in names[begin : begin + MESSAGES]])
    await receipts.every(names)


@promise("groups", "keys", stores=True)
async def keys_across_processes(bed: Bed) -> None:
    """Messages of one key are handled in order though several processes share the group."""
    bus, channel, group, receipts = await bed.bus(), bed.channel(), bed.group(), bed.collector()
    await bed.subscribe(bus, done(channel), receipts.handle)
    for _ in range(3):
        await bed.spawn(channel, group, concurrency=2)
    for n in range(MESSAGES):
        await bus.publish(channel, f"slow-{n}", key=f"key-{n % 4}")
    await receipts.every(f"slow-{n}" for n in range(MESSAGES))
    for key in range(4):
        mine = [m.payload for m in receipts.messages if m.key == f"key-{key}"]
        same(mine, [f"slow-{n}" for n in range(key, MESSAGES, 4)], f"the order of key-{key}")
