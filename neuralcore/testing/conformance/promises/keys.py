"""Messages of one key keep their order and are handled one at a time, across all members."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import Any

from neuralcore._core import Message
from neuralcore.messaging.retry import RetryPolicy
from neuralcore.messaging.transport import Outcome
from neuralcore.testing.conformance.bare import envelope, fetch, nothing, numbers, reader, settle
from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import expect, promise, same

KEYS = 5
EACH = 30
WORK = 0.002
"""Seconds: the least that a handler takes, so that members overlap."""
SLOW = RetryPolicy(max_attempts=3, base=0.2, jitter=False)


class Watch:
    """Sees which keys are being handled, and in which order."""

    def __init__(self) -> None:
        self.running: Counter[str | None] = Counter()
        self.order: defaultdict[str | None, list[Any]] = defaultdict(list)
        self.overlaps = 0

    async def handle(self, message: Message) -> None:
        self.running[message.key] += 1
        self.overlaps += self.running[message.key] > 1
        self.order[message.key].append(message.payload)
        await asyncio.sleep(message.payload % 4 * WORK)
        self.running[message.key] -= 1


@promise("keys", "groups")
async def order_and_one_at_a_time(bed: Bed) -> None:
    """One key's messages are handled in order, one at a time, whatever the number of workers and members."""
    buses, channel, group = [await bed.bus() for _ in range(2)], bed.channel(), bed.group()
    watch = Watch()
    got = bed.collector(watch.handle)
    for bus in buses:
        await bed.subscribe(bus, channel, got.handle, group=group, concurrency=4, **bed.prefetch(4))
    for n in range(KEYS * EACH):
        await buses[0].publish(channel, n, key=f"key-{n % KEYS}")
    await got.every(range(KEYS * EACH))
    same(watch.overlaps, 0, "messages of one key handled at once")
    for number in range(KEYS):
        wanted = list(range(number, KEYS * EACH, KEYS))
        same(watch.order[f"key-{number}"], wanted, f"the order of key-{number}")


@promise("keys")
async def keys_do_not_wait_for_each_other(bed: Bed) -> None:
    """A key whose handler is slow holds up its own messages only, and none without a key."""
    bus, channel, gate = await bed.bus(), bed.channel(), bed.gate()

    async def hold(message: Message) -> None:
        if message.key == "slow":
            await gate.wait()

    got = bed.collector(hold)
    await bed.subscribe(bus, channel, got.handle, concurrency=2)
    for n in range(10):
        await bus.publish(channel, f"slow-{n}", key="slow")
        await bus.publish(channel, f"fast-{n}", key="fast")
        await bus.publish(channel, f"none-{n}")
    await got.count(21)
    await bed.quiet()
    counts = Counter(payload.partition("-")[0] for payload in got.payloads)
    same(dict(counts), {"slow": 1, "fast": 10, "none": 10}, "messages handled")
    gate.open()
    await got.exactly(30)
    slow = [payload for payload in got.payloads if payload.startswith("slow")]
    same(slow, [f"slow-{n}" for n in range(10)], "the order of the slow key")


@promise("keys")
async def a_failing_key_waits(bed: Bed) -> None:
    """A keyed message that fails is held in place: its successors wait for its retry, other keys do not."""
    got, order = await failing(bed, hold_keys=True)
    same(order, ["bad-0", "bad-0", "bad-1", "bad-2"], "the order of the key that failed")
    fine = [time for m, time in zip(got.messages, got.times, strict=True) if m.key == "fine"]
    retried = [time for m, time in zip(got.messages, got.times, strict=True) if m.attempt == 2]
    expect(max(fine) < retried[0], "the other key waited for the retry")


@promise("keys")
async def a_failing_key_may_pass(bed: Bed) -> None:
    """With ``hold_keys=False`` the successors of a keyed message that fails pass it."""
    _, order = await failing(bed, hold_keys=False)
    same(order, ["bad-0", "bad-1", "bad-2", "bad-0"], "the order of the key that failed")


async def failing(bed: Bed, *, hold_keys: bool) -> tuple[Any, list[Any]]:
    bus, channel = await bed.bus(), bed.channel()

    async def fail_once(message: Message) -> None:
        if message.payload == "bad-0" and message.attempt == 1:
            raise RuntimeError("on purpose")

    got = bed.collector(fail_once)
    await bed.subscribe(bus, channel, got.handle, retry=SLOW, concurrency=2, hold_keys=hold_keys)
    for n in range(3):
        await bus.publish(channel, f"bad-{n}", key="bad")
        await bus.publish(channel, f"fine-{n}", key="fine")
    await got.exactly(7)
    return got, [m.payload for m in got.messages if m.key == "bad"]


@promise("keys")
async def a_dead_key_goes_on(bed: Bed) -> None:
    """When a keyed message is dead-lettered, its key goes on with the next."""
    bus, channel, dead = await bed.bus(), bed.channel(), bed.collector()

    async def fail(message: Message) -> None:
        if message.payload == 0:
            raise RuntimeError("on purpose")

    got = bed.collector(fail)
    await bed.subscribe(bus, f"_dlq.{channel}", dead.handle)
    await bed.subscribe(bus, channel, got.handle, retry=SLOW, concurrency=3)
    for n in range(3):
        await bus.publish(channel, n, key="k")
    await dead.exactly(1, "dead letters")
    await got.exactly(5)
    same(got.payloads, [0, 0, 0, 1, 2], "the order")


@promise("keys", "groups", stores=True)
async def a_failing_key_waits_everywhere(bed: Bed) -> None:
    """A keyed message that waits for its retry holds its key for the group's other clients too."""
    first, second, channel = await bed.transport(), await bed.transport(), bed.channel()
    group = bed.group()
    failing = await reader(first, bed, channel, group)
    await first.commit([envelope(channel, n, key="k") for n in range(3)])
    (delivery,) = await fetch(bed, failing, 1, wanted=1)
    await nothing(failing, "what comes while the key is held")
    await settle(first, Outcome.NACK, delivery, delay=SLOW.base)
    await bed.within(first.close(), "closing")
    consumer = await reader(second, bed, channel, group)
    order = []
    for _ in range(3):
        found = await fetch(bed, consumer, 10, wanted=1)
        order += [(number, each.attempt) for number, each in zip(numbers(found), found, strict=True)]
        await settle(second, Outcome.ACK, *found)
    same(order, [(0, 2), (1, 1), (2, 1)], "the messages and their attempts, in order")
    await consumer.close()
