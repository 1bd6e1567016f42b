"""Priority is strict, and first come is first served inside one priority."""

from __future__ import annotations

import random

from neuralcore._core import Message
from neuralcore.messaging.errors import PriorityOutOfRange
from neuralcore.messaging.retry import RetryPolicy
from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import Broken, promise, same

BACKLOG = 200
WINDOW = 10


@promise()
async def fifo(bed: Bed) -> None:
    """Messages of one publisher and one priority are handled in the order published."""
    bus, channel, got = await bed.bus(), bed.channel(), bed.collector()
    await bed.subscribe(bus, channel, got.handle)
    for n in range(BACKLOG):
        await bus.publish(channel, n)
    await got.every(range(BACKLOG))
    same(got.payloads, list(range(BACKLOG)), "the order")


@promise("priorities")
async def strict(bed: Bed) -> None:
    """Of a backlog the most urgent message is handled first, prefetched ones apart."""
    bus, channel, gate = await bed.bus(), bed.channel(), bed.gate()
    first = bed.collector(gate.wait)
    await bed.subscribe(bus, channel, first.handle, capacity=bed.narrow(WINDOW, BACKLOG + 1))
    await bus.publish(channel, (-1, 0), priority=0)
    await gate.held(1)
    rng = random.Random(BACKLOG)
    ranks = [rng.randrange(256) for _ in range(BACKLOG)]
    for n, rank in enumerate(ranks):
        await bus.publish(channel, (rank, n), priority=rank)
    await bed.quiet()
    gate.open()
    await first.count(BACKLOG + 1)
    order = [(m.priority, m.payload[1]) for m in first.messages[1:]]
    if bed.capabilities.in_process:
        same(order, sorted(order), "the order")
    check_window(order, WINDOW)


def check_window(order: list[tuple[int, int]], window: int) -> None:
    """No message may be handled before more than ``window`` messages that are more urgent than it."""
    for index, (rank, _) in enumerate(order):
        overtaken = sum(later < rank for later, _ in order[index + 1 :])
        if overtaken > window:
            raise Broken(
                f"a message of priority {rank} was handled before {overtaken} more urgent ones; "
                f"prefetching explains at most {window}"
            )


@promise("priorities")
async def urgent_overtakes(bed: Bed) -> None:
    """A CRITICAL message published behind a backlog is handled next but for what runs already."""
    bus, channel, gate = await bed.bus(), bed.channel(), bed.gate()
    got = bed.collector(gate.wait)
    await bed.subscribe(bus, channel, got.handle, capacity=bed.narrow(5, 100))
    for n in range(50):
        await bus.publish(channel, n, priority=100)
    await gate.held(1)
    await bed.quiet()
    await bus.publish(channel, "urgent", priority=0)
    await bed.quiet()
    gate.open()
    await got.count(51)
    same(got.payloads.index("urgent"), 1, "the place of the urgent message")


@promise("priorities")
async def range_of_priorities(bed: Bed) -> None:
    """Priorities are 0 to 255; others are refused."""
    bus, channel, got = await bed.bus(), bed.channel(), bed.collector()
    await bed.subscribe(bus, channel, got.handle)
    for priority in (-1, 256, 10_000):
        try:
            await bus.publish(channel, "no", priority=priority)
        except PriorityOutOfRange:
            continue
        raise Broken(f"priority {priority} was accepted")
    for priority in (0, 255):
        await bus.publish(channel, priority, priority=priority)
    for message in await got.exactly(2):
        same(message.priority, message.payload, "priority")


@promise()
async def retried_go_behind(bed: Bed) -> None:
    """A retried message without a key comes back behind its equals."""
    bus, channel, gate = await bed.bus(), bed.channel(), bed.gate()

    async def fail_first(message: Message) -> None:
        await gate.wait()
        if message.payload == 0 and message.attempt == 1:
            raise RuntimeError("on purpose")

    got = bed.collector(fail_first)
    policy = RetryPolicy(base=0.0, jitter=False)
    await bed.subscribe(bus, channel, got.handle, retry=policy)
    for n in range(4):
        await bus.publish(channel, n)
    await gate.held(1)
    await bed.quiet()
    gate.open()
    await got.exactly(5)
    same(got.payloads, [0, 1, 2, 3, 0], "the order")
