"""A message reaches its own channel's subscribers, and nobody else."""

from __future__ import annotations

from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import promise, same


@promise(mandatory=True)
async def channels(bed: Bed) -> None:
    """Channels do not cross, though they share a bus and a moment."""
    bus = await bed.bus()
    collectors = {bed.channel(): bed.collector() for _ in range(8)}
    for channel, got in collectors.items():
        await bed.subscribe(bus, channel, got.handle)
    for n in range(25):
        for channel in collectors:
            await bus.publish(channel, f"{channel}/{n}")
    for channel, got in collectors.items():
        await got.every(f"{channel}/{n}" for n in range(25))
        same({message.channel for message in got.messages}, {channel}, "the channel of messages")


@promise(mandatory=True)
async def similar_names(bed: Bed) -> None:
    """Names that begin alike, or differ in case, are different channels."""
    bus, base = await bed.bus(), bed.channel("base")
    names = [base, f"{base}.a", f"{base}.a.b", f"{base}.ab", f"{base}.A", f"{base}x"]
    collectors = {name: bed.collector() for name in names}
    for name, got in collectors.items():
        await bed.subscribe(bus, name, got.handle)
    for name in names:
        await bus.publish(name, name)
    for name, got in collectors.items():
        await got.count(1, f"deliveries on {name}")
    await bed.quiet()
    for name, got in collectors.items():
        same(got.payloads, [name], f"what arrived on {name}")


@promise("groups")
async def one_group_name_on_two_channels(bed: Bed) -> None:
    """One group's name on two channels shares nothing between them."""
    bus, group = await bed.bus(), bed.group()
    first, second = bed.channel(), bed.channel()
    got_first, got_second = bed.collector(), bed.collector()
    await bed.subscribe(bus, first, got_first.handle, group=group)
    await bed.subscribe(bus, second, got_second.handle, group=group)
    for n in range(10):
        await bus.publish(first, f"first-{n}")
        await bus.publish(second, f"second-{n}")
    await got_first.every(f"first-{n}" for n in range(10))
    await got_second.every(f"second-{n}" for n in range(10))
