"""Many at once: losses and duplicates are both counted."""

from __future__ import annotations

import asyncio

from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import expect, promise, same

PUBLISHERS = 8
EACH = 50


@promise(mandatory=True)
async def publishers(bed: Bed) -> None:
    """Many publishers at once on one channel: nothing is lost, nothing comes twice."""
    buses = [await bed.bus() for _ in range(2)]
    got, channel = bed.collector(), bed.channel()
    await bed.subscribe(buses[0], channel, got.handle)

    async def publish(number: int) -> None:
        for n in range(EACH):
            await buses[number % 2].publish(channel, f"{number}/{n}")

    await bed.within(asyncio.gather(*map(publish, range(PUBLISHERS))), "publishing")
    await got.every(f"{number}/{n}" for number in range(PUBLISHERS) for n in range(EACH))


@promise("groups")
async def publishers_and_members(bed: Bed) -> None:
    """Many publishers and many members at once, several at a time each: the same."""
    buses = [await bed.bus() for _ in range(3)]
    channel, group, everyone = bed.channel(), bed.group(), bed.collector()
    for number in range(6):
        await bed.subscribe(buses[number % 3], channel, everyone.handle, group=group, concurrency=1 + number % 3)

    async def publish(number: int) -> None:
        batch = [(channel, f"{number}/{n}") for n in range(EACH)]
        await buses[number % 3].publish_many(batch)

    await bed.within(asyncio.gather(*map(publish, range(PUBLISHERS))), "publishing")
    await everyone.every(f"{number}/{n}" for number in range(PUBLISHERS) for n in range(EACH))


@promise(mandatory=True)
async def workers(bed: Bed) -> None:
    """``concurrency=n`` handles n messages at once, and one handles one after the other."""
    bus, channel, alone = await bed.bus(), bed.channel(), bed.channel()
    gate, single = bed.gate(), bed.gate()
    await bed.subscribe(bus, channel, bed.collector(gate.wait).handle, concurrency=4)
    await bed.subscribe(bus, alone, bed.collector(single.wait).handle)
    for n in range(8):
        await bus.publish(channel, n)
        await bus.publish(alone, n)
    await gate.held(4)
    await single.held(1)
    await bed.quiet()
    same((gate.most, single.most), (4, 1), "handlers running at once")
    gate.open()
    single.open()


@promise(mandatory=True)
async def many_channels(bed: Bed) -> None:
    """A hundred channels at once, each with its own subscriber."""
    bus, count = await bed.bus(), 100
    names = [bed.channel() for _ in range(count)]
    everyone = bed.collector()
    for name in names:
        await bed.subscribe(bus, name, everyone.handle)
    await bed.within(
        asyncio.gather(*(bus.publish(name, f"{name}/{n}") for n in range(3) for name in names)),
        "publishing",
    )
    await everyone.every(f"{name}/{n}" for n in range(3) for name in names)
    expect(
        all(m.payload.startswith(f"{m.channel}/") for m in everyone.messages),
        "a message arrived on another channel",
    )


@promise(mandatory=True)
async def several_handlers_on_one_channel(bed: Bed) -> None:
    """A slow subscriber does not hold up the others."""
    bus, channel = await bed.bus(), bed.channel()
    gate, fast = bed.gate(), bed.collector()
    slow = bed.collector(gate.wait)
    await bed.subscribe(bus, channel, slow.handle)
    await bed.subscribe(bus, channel, fast.handle)
    for n in range(20):
        await bus.publish(channel, n)
    await fast.every(range(20))
    same(len(slow.messages), 1, "messages given to the slow one")
    gate.open()
    await slow.every(range(20))
