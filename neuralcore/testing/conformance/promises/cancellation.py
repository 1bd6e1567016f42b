"""Cancelling at any point: what was cancelled has happened or has not, and nothing leaks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from neuralcore._core import Message
from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.errors import RequestTimeout
from neuralcore.messaging.retry import RetryPolicy
from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import expect, promise, same

POINTS = 12
FAST = RetryPolicy(max_attempts=5, base=0.01, jitter=False)


async def cancelled_at(steps: int, start: Callable[[], Awaitable[Any]]) -> tuple[bool, Any]:
    """Start it, let the loop turn so many times, cancel it: whether it ended before that, and with what."""

    async def work() -> Any:
        return await start()

    task = asyncio.create_task(work())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        return True, await task
    return False, None


@promise(mandatory=True)
async def publishing(bed: Bed) -> None:
    """A publish cancelled at any point happened once or not at all, and once if it had returned."""
    bus, channel, got = await bed.bus(), bed.channel(), bed.collector()
    await bed.subscribe(bus, channel, got.handle)
    returned = set()
    for n in range(POINTS * 4):
        done, _ = await cancelled_at(n % POINTS, partial(bus.publish, channel, n))
        if done:
            returned.add(n)
    await bus.publish(channel, "last")
    while "last" not in got.payloads:
        await got.count(len(got.messages) + 1)
    await bed.quiet()
    handled = [payload for payload in got.payloads if payload != "last"]
    same(len(handled), len(set(handled)), "deliveries, each message once")
    same(returned - set(handled), set(), "messages that were published and are lost")


@promise(mandatory=True)
async def handling(bed: Bed) -> None:
    """A handler cancelled at any point failed one attempt; its worker goes on."""
    bus, channel = await bed.bus(), bed.channel()

    async def cancel_myself(message: Message) -> None:
        if message.attempt > 1:
            return
        task = asyncio.current_task()
        assert task is not None
        for step in range(POINTS):
            if step == message.payload:
                task.cancel()
            await asyncio.sleep(0)

    got = bed.collector(cancel_myself)
    await bed.subscribe(bus, channel, got.handle, retry=FAST)
    for n in range(POINTS):
        await bus.publish(channel, n)
    await got.exactly(2 * POINTS)
    attempts = sorted((m.payload, m.attempt) for m in got.messages)
    same(attempts, [(n, a) for n in range(POINTS) for a in (1, 2)], "attempts")


@promise(mandatory=True)
async def timing_out(bed: Bed) -> None:
    """A handler that takes longer than ``timeout=`` is cancelled, and that is a failed attempt."""
    bus, channel = await bed.bus(), bed.channel()
    cancelled: list[int] = []

    async def slow(message: Message) -> None:
        if message.attempt < 3:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.append(message.attempt)

    got = bed.collector(slow)
    await bed.subscribe(bus, channel, got.handle, retry=FAST, timeout=0.1)
    await bus.publish(channel, 1)
    await got.exactly(3)
    same(cancelled, [1, 2], "attempts that were cancelled")
    same([m.attempt for m in got.messages], [1, 2, 3], "attempts")


@promise("request_reply")
async def requesting(bed: Bed) -> None:
    """A request cancelled at any point leaves the next one alone."""
    bus, channel = await bed.bus(), bed.channel()

    async def echo(message: Message) -> Any:
        return message.payload

    await bed.subscribe(bus, channel, echo)
    patience = bed.harness.patience
    for n in range(POINTS * 2):
        await cancelled_at(n % POINTS, partial(bus.request, channel, n, timeout=patience))
        with suppress(RequestTimeout):
            same(await bus.request(channel, -n, timeout=patience), -n, "the reply after that")


@promise("groups")
async def leaving(bed: Bed) -> None:
    """Unsubscribing cancelled at any point loses nothing."""
    bus, channel, group = await bed.bus(), bed.channel(), bed.group()
    everyone = bed.collector()
    await bed.subscribe(bus, channel, everyone.handle, group=group)
    for n in range(POINTS):
        going = await bed.subscribe(bus, channel, everyone.handle, group=group)
        await bus.publish_many([(channel, f"{n}/{m}") for m in range(5)])
        await cancelled_at(n, partial(going.unsubscribe, timeout=1.0))
        await bed.within(going.unsubscribe(timeout=1.0), "unsubscribing after that", beyond=1.0)
    await everyone.every(f"{n}/{m}" for n in range(POINTS) for m in range(5))


@promise(mandatory=True)
async def closing(bed: Bed) -> None:
    """Closing cancelled at any point can be asked for again, and ends."""
    for steps in range(0, POINTS, 2):
        bus, channel, got = await bed.fresh(), bed.channel(), bed.collector()
        await bed.subscribe(bus, channel, got.handle)
        await bus.publish(channel, 1)
        await cancelled_at(steps, partial(bus.close, timeout=1.0))
        report = await bed.within(bus.close(timeout=1.0), "closing again", beyond=1.0)
        expect(report is not None, "close answered no report")
        _check_dead(bus)


def _check_dead(bus: MessageBus) -> None:
    expect(not any(s.in_flight for s in bus.metrics().subscriptions), "messages are still in flight")
