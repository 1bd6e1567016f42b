"""The process that consumes: ``python -m benchmarks._redis_child KIND URL N NAP_MS SIZE``.

It says ``ready`` once what is published from then on reaches it, handles n messages, and says which it has handled, at
which moments, when all of them were settled, and how much CPU that took. Handlers record the moment at which they
begin, then sleep for the nap. Every kind reads up to 100 messages at once where it has such an option, and has 20
handlers at once when they sleep; otherwise as many as make it fastest.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks._bus import CHANNEL
from benchmarks._durable import GROUP, settled
from benchmarks._redis import BATCH, STREAM, Text, bus_on, plain_client
from benchmarks._redis_peers import (
    CONCURRENCY,
    QUEUE,
    Read,
    at_once,
    celery_app,
    faststream_broker,
    reader,
    taskiq_broker,
)
from neuralcore._core import Message

LOOK = 0.0005
"""Seconds between looks at whether the last messages were settled."""


class Seen:
    """What was handled, and when. A message with another text than this is none of those that were published."""

    def __init__(self, n: int, nap: float, text: Text) -> None:
        self.n, self.nap, self._text = n, nap, text.text
        self.numbers: list[int] = []
        self.moments: list[int] = []
        self._cpu = 0

    def begin(self, payload: Any) -> None:
        self.moments.append(time.monotonic_ns())
        self.numbers.append(payload["i"] if payload["text"] == self._text else -1)

    async def handle(self, payload: Any) -> None:
        self.begin(payload)
        if self.nap:
            await asyncio.sleep(self.nap)

    @property
    def whole(self) -> bool:
        return len(self.numbers) >= self.n

    def ready(self) -> None:
        self._cpu = time.process_time_ns()
        print("ready", flush=True)

    def end(self) -> None:
        """Everything is settled."""
        end, cpu = time.monotonic_ns(), time.process_time_ns() - self._cpu
        told = {"numbers": self.numbers, "moments": self.moments, "end": end, "cpu": cpu}
        print(json.dumps(told), flush=True)


async def _bus(url: str, seen: Seen) -> None:
    async with bus_on(url, fresh=False) as bus:

        async def handler(message: Message) -> None:
            await seen.handle(message.payload)

        concurrency = CONCURRENCY if seen.nap else 1
        subscribed = bus.subscribe(CHANNEL, handler, group=GROUP, concurrency=concurrency, capacity=1_000)
        await subscribed.ready()
        seen.ready()
        await settled(bus, subscribed, seen.n)
        seen.end()


async def _raw(url: str, seen: Seen) -> None:
    async with plain_client(url) as client, plain_client(url) as acks:
        await client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        seen.ready()
        read = reader(client)
        if seen.nap:
            await at_once(read, acks, seen.handle, seen.n)
        else:
            await _raw_in_turn(read, acks, seen)
        seen.end()


async def _raw_in_turn(read: Read, acks: Any, seen: Seen) -> None:
    while not seen.whole:
        if entries := await read():
            for _, fields in entries:
                await seen.handle(json.loads(fields[b"data"]))
            await acks.xack(STREAM, GROUP, *(entry for entry, _ in entries))


async def _faststream(url: str, seen: Seen) -> None:
    from faststream.redis import StreamSub

    broker = faststream_broker(url)
    source = StreamSub(STREAM, group=GROUP, consumer="one", max_records=BATCH)

    @broker.subscriber(stream=source, max_workers=CONCURRENCY if seen.nap else None, no_reply=True)
    async def handle(payload: dict[str, Any]) -> None:
        await seen.handle(payload)

    async with plain_client(url) as looking:
        await broker.start()
        seen.ready()
        await _acknowledged(looking, seen)
        seen.end()
        await broker.stop()


async def _faststream_batches(url: str, seen: Seen) -> None:
    from faststream.redis import StreamSub

    broker = faststream_broker(url)
    source = StreamSub(STREAM, group=GROUP, consumer="one", batch=True, max_records=BATCH)

    @broker.subscriber(stream=source, no_reply=True)
    async def handle(payloads: list[dict[str, Any]]) -> None:
        for payload in payloads:
            await seen.handle(payload)

    async with plain_client(url) as looking:
        await broker.start()
        seen.ready()
        await _acknowledged(looking, seen)
        seen.end()
        await broker.stop()


async def _taskiq(url: str, seen: Seen) -> None:
    from taskiq.api import run_receiver_task

    broker, _ = taskiq_broker(url, seen.handle)
    async with plain_client(url) as looking:
        await broker.startup()
        receiver = asyncio.create_task(
            run_receiver_task(broker, max_async_tasks=CONCURRENCY, max_prefetch=BATCH, validate_params=False)
        )
        seen.ready()
        await _acknowledged(looking, seen)
        seen.end()
        receiver.cancel()
        await asyncio.gather(receiver, return_exceptions=True)


async def _acknowledged(client: Any, seen: Seen) -> None:
    """For those who do not tell: asks the server, but only after the last handler has begun."""
    while not seen.whole or (await client.xpending(STREAM, GROUP))["pending"]:  # noqa: ASYNC110
        await asyncio.sleep(LOOK)


def _celery(url: str, seen: Seen) -> None:
    """Its worker runs in the main thread, its handlers in threads."""
    import redis
    from celery.platforms import SecurityWarning
    from celery.signals import worker_ready

    warnings.simplefilter("ignore", SecurityWarning)  # of running as root

    app, _ = celery_app(
        url, seen.begin if not seen.nap else lambda payload: (seen.begin(payload), time.sleep(seen.nap))
    )

    def watch() -> None:
        looking = redis.Redis.from_url(url)
        while not seen.whole or looking.hlen("unacked") or looking.llen(QUEUE):
            time.sleep(LOOK)
        seen.end()
        os._exit(0)

    @worker_ready.connect(weak=False)
    def ready(**_: object) -> None:
        threading.Thread(target=watch, daemon=True).start()
        seen.ready()

    quiet = ("--loglevel=CRITICAL", "--without-gossip", "--without-mingle", "--without-heartbeat")
    app.worker_main(["--quiet", "worker", "--pool=threads", f"--concurrency={CONCURRENCY}", *quiet])


KINDS: dict[str, Callable[[str, Seen], Awaitable[None]]] = {
    "bus": _bus,
    "raw": _raw,
    "FastStream": _faststream,
    "FastStream, batches": _faststream_batches,
    "taskiq": _taskiq,
}


def _child(kind: str, url: str, n: str, nap_ms: str, size: str) -> None:
    seen = Seen(int(n), float(nap_ms) / 1000, Text(int(size)))
    if kind != "bus":
        logging.disable()
    if kind == "Celery":
        _celery(url, seen)
    else:
        asyncio.run(_awaited(KINDS[kind](url, seen)))
    sys.stdout.flush()
    os._exit(0)  # what peers have running in the background does not matter


async def _awaited(work: Awaitable[None]) -> None:
    await work


if __name__ == "__main__":
    _child(*sys.argv[1:])
