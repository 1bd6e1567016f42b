"""Wildcards in subscriptions: ``*`` is one token, ``>`` is the rest."""

from __future__ import annotations

from neuralcore.messaging.errors import InvalidChannelName
from neuralcore.messaging.retry import Reject
from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import Broken, promise, same

TAILS = ("a", "b", "a.b", "a.c", "b.b", "a.b.c", "a.x.c", "b.x.y.c")

MATCHES = {
    "a": {"a"},
    "*": {"a", "b"},
    ">": set(TAILS),
    "a.*": {"a.b", "a.c"},
    "*.b": {"a.b", "b.b"},
    "a.>": {"a.b", "a.c", "a.b.c", "a.x.c"},
    "a.*.c": {"a.b.c", "a.x.c"},
    "*.*": {"a.b", "a.c", "b.b"},
    "*.x.>": {"a.x.c", "b.x.y.c"},
}


@promise(mandatory=True)
async def wildcards(bed: Bed) -> None:
    """Each pattern gets exactly the channels it matches."""
    bus, base = await bed.bus(), bed.channel("base")
    collectors = {pattern: bed.collector() for pattern in MATCHES}
    for pattern, got in collectors.items():
        await bed.subscribe(bus, f"{base}.{pattern}", got.handle)
    for tail in TAILS:
        await bus.publish(f"{base}.{tail}", tail)
    for pattern, got in collectors.items():
        await got.count(len(MATCHES[pattern]), f"deliveries to {pattern}")
    await bed.quiet()
    for pattern, got in collectors.items():
        same(sorted(got.payloads), sorted(MATCHES[pattern]), f"what {pattern} got")


@promise(mandatory=True)
async def later_channels(bed: Bed) -> None:
    """A channel created after a pattern subscription is picked up from its beginning."""
    bus, base, got = await bed.bus(), bed.channel("base"), bed.collector()
    await bed.subscribe(bus, f"{base}.*", got.handle)
    publisher = await bed.bus()
    for n in range(5):
        for m in range(3):
            await publisher.publish(f"{base}.new{n}", f"{n}/{m}")
    await got.every(f"{n}/{m}" for n in range(5) for m in range(3))


@promise(mandatory=True)
async def reserved_tokens(bed: Bed) -> None:
    """A leading wildcard never matches channels that begin with an underscore."""
    bus, channel, token = await bed.bus(), bed.channel(), bed.token
    everything, exact = bed.collector(), bed.collector()
    await bed.subscribe(bus, ">", everything.handle)
    await bed.subscribe(bus, f"_dlq.{channel}", exact.handle)

    async def refuse(message: object) -> None:
        raise Reject("on purpose")

    await bed.subscribe(bus, channel, refuse)
    await bus.publish(channel, f"reject {token}")
    await exact.count(1, "dead letters")
    await everything.include([f"reject {token}"])
    await bed.quiet()
    seen = [m.channel for m in everything.messages if token in m.channel]
    same(seen, [channel], "what > got")


@promise(mandatory=True)
async def wildcards_in_publish(bed: Bed) -> None:
    """Publishing to a pattern, or to no valid name, is refused."""
    bus = await bed.bus()
    for name in ("a.*", ">", "a..b", "", ".a", "a."):
        try:
            await bus.publish(name, 1)
        except InvalidChannelName:
            continue
        raise Broken(f"publish({name!r}) was accepted")


@promise("groups", stores=True)
async def earlier_channels(bed: Bed) -> None:
    """A pattern's first group gets what the channels that were there before it hold, from their beginnings."""
    bus, base, got = await bed.bus(), bed.channel("base"), bed.collector()
    for n in range(3):
        for m in range(3):
            await bus.publish(f"{base}.old{n}", f"old{n}/{m}")
    await bed.subscribe(await bed.bus(), f"{base}.*", got.handle)
    await bus.publish(f"{base}.new", "new/0")
    await bus.publish(f"{base}.old1", "old1/3")
    await got.every([*(f"old{n}/{m}" for n in range(3) for m in range(3)), "new/0", "old1/3"])
