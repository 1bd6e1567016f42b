"""How fast can other threads publish to handlers on the loop?"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial

from benchmarks._bus import CHANNEL
from benchmarks._cli import main
from benchmarks._harness import Arm, Benchmark, Metrics, Target, Watch
from benchmarks._sink import Sink
from neuralcore.messaging.bus import MessageBus

__all__ = ["BENCHMARKS"]

PRODUCERS = 2


class Producers:
    """Threads that send an equal share of the messages each, in turn from its own range."""

    def __init__(self, n: int, send: Callable[[dict[str, int]], object]) -> None:
        share = n // PRODUCERS
        ranges = [range(p * share, (p + 1) * share) for p in range(PRODUCERS)]
        self._threads = [threading.Thread(target=self._produce, args=(part, send)) for part in ranges]

    @staticmethod
    def _produce(part: range, send: Callable[[dict[str, int]], object]) -> None:
        for i in part:
            send({"i": i})

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


async def _bus(n: int, sink: Sink) -> Metrics:
    async with MessageBus() as bus:
        subscribed = bus.subscribe(CHANNEL, sink.awaited(), capacity=n)
        await subscribed.ready()
        producers = Producers(n, partial(bus.publish_nowait, CHANNEL))
        with (watch := Watch(time.process_time_ns)):
            producers.start()
            await asyncio.to_thread(producers.join)
            await subscribed.unsubscribe(timeout=60.0)
    return watch.per(n)


async def _call_soon(n: int, sink: Sink) -> Metrics:
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[dict[str, int]] = asyncio.Queue()
    handle = sink.awaited()

    async def consume() -> None:
        for _ in range(n // PRODUCERS * PRODUCERS):
            await handle(await queue.get())

    post: Callable[..., object] = loop.call_soon_threadsafe
    producers = Producers(n, partial(post, queue.put_nowait))
    with (watch := Watch(time.process_time_ns)):
        consumer = asyncio.create_task(consume())
        producers.start()
        await consumer
    producers.join()
    return watch.per(n)


BENCHMARKS = (
    Benchmark(
        name="threads",
        question=f"How fast can {PRODUCERS} other threads publish to a handler on the loop?",
        arms=(
            Arm(name="bus.publish_nowait", run=_bus, producers=PRODUCERS),
            Arm(name="call_soon_threadsafe(put_nowait)", run=_call_soon, producers=PRODUCERS),
        ),
        messages=50_000,
        targets=(
            Target(
                what="from other threads, times call_soon_threadsafe",
                subject="bus.publish_nowait",
                peer="call_soon_threadsafe(put_nowait)",
                goal=10.0,
            ),
        ),
    ),
)

if __name__ == "__main__":
    main(BENCHMARKS)
