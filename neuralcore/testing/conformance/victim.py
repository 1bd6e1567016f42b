"""A client made to be killed, in a process of its own.

``victim URL hold CHANNEL GROUP CONCURRENCY`` prints "ready", then "holding" for every message its handler is given that
is no ``errand``, and "lost" for every one whose lease is lost meanwhile; it lets them go when it reads a line.
``victim URL publish CHANNEL COUNT`` prints "published" when the last one is stored.
"""
# ruff: noqa: T201 - what it prints is how it is steered

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from neuralcore._core import Message
from neuralcore.messaging.bus import MessageBus
from neuralcore.testing.conformance.errand import errand

GLANCE = 0.05
"""Seconds between two looks at a lease."""


async def hold(bus: MessageBus, channel: str, group: str, concurrency: str) -> None:
    finish = asyncio.Event()
    waiting = asyncio.ensure_future(finish.wait())

    async def handle(message: Message) -> None:
        if await errand(bus, message):
            return
        print("holding", flush=True)
        while not finish.is_set():
            if message.lease_lost:
                print("lost", flush=True)
                await finish.wait()
            await asyncio.wait([waiting], timeout=GLANCE)

    subscription = bus.subscribe(channel, handle, group=group, concurrency=int(concurrency))
    await subscription.ready()
    print("ready", flush=True)
    if await asyncio.to_thread(sys.stdin.readline):
        finish.set()
        await asyncio.Event().wait()


async def publish(bus: MessageBus, channel: str, count: str) -> None:
    for n in range(int(count)):
        await bus.publish(channel, n)
    print("published", flush=True)
    await asyncio.Event().wait()


async def main(url: str, what: str, *arguments: Any) -> None:
    tasks: dict[str, Callable[..., Awaitable[None]]] = {"hold": hold, "publish": publish}
    async with MessageBus(url) as bus:
        await tasks[what](bus, *arguments)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
