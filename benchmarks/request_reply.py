"""What does a request with its reply cost, against futures handed over a queue?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from benchmarks._bus import CHANNEL
from benchmarks._cli import main
from benchmarks._harness import Arm, Benchmark, Metrics, Target, Watch
from benchmarks._sink import Sink
from neuralcore._core import Message
from neuralcore.messaging.bus import MessageBus

__all__ = ["BENCHMARKS"]

Payload = dict[str, int]
Ask = Callable[[Payload], Awaitable[Payload]]
TIMEOUT = 30.0


def _both_ways(n: int) -> Mapping[str, Sequence[int]]:
    return {"requests": range(n), "replies": range(n)}


async def _timed(ask: Ask, n: int, callers: int, sink: Sink) -> Metrics:
    received = sink.plain("replies")
    numbers = iter(range(n))

    async def call() -> None:
        for i in numbers:
            received(await ask({"i": i}))

    with (watch := Watch()):
        await asyncio.gather(*[call() for _ in range(callers)])
    return watch.per(n)


def _bus(callers: int) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        handled = sink.plain("requests")

        async def echo(message: Message) -> Any:
            handled(message)
            return message.payload

        async with MessageBus() as bus:
            await bus.subscribe(CHANNEL, echo).ready()
            request = bus.request
            return await _timed(lambda payload: request(CHANNEL, payload, timeout=TIMEOUT), n, callers, sink)

    return Arm(name="bus.request", run=run, expect=_both_ways, ordered=callers == 1)


def _by_hand(callers: int, *, timeout: bool) -> Arm:
    """The future travels with the payload, so nothing has to be correlated. The timer is the cheapest one there is."""

    async def run(n: int, sink: Sink) -> Metrics:
        loop = asyncio.get_running_loop()
        handled = sink.plain("requests")
        queue: asyncio.Queue[tuple[Payload, asyncio.Future[Payload]]] = asyncio.Queue(1_000)

        async def echo(payload: Payload) -> Payload:
            handled(payload)
            return payload

        async def respond() -> None:
            for _ in range(n):
                payload, future = await queue.get()
                answer = await echo(payload)
                if not future.done():
                    future.set_result(answer)

        async def ask(payload: Payload) -> Payload:
            future: asyncio.Future[Payload] = loop.create_future()
            await queue.put((payload, future))
            return await future

        def expire(future: asyncio.Future[Payload]) -> None:
            if not future.done():
                future.set_exception(TimeoutError())

        async def ask_in_time(payload: Payload) -> Payload:
            future: asyncio.Future[Payload] = loop.create_future()
            timer = loop.call_later(TIMEOUT, expire, future)
            try:
                await queue.put((payload, future))
                return await future
            finally:
                timer.cancel()

        responder = asyncio.create_task(respond())
        metrics = await _timed(ask_in_time if timeout else ask, n, callers, sink)
        await responder
        return metrics

    name = "queue, future and timer" if timeout else "queue and future"
    return Arm(name=name, run=run, expect=_both_ways, ordered=callers == 1)


def _benchmark(callers: int, how: str) -> Benchmark:
    return Benchmark(
        name=f"request/reply, {how}",
        question=f"What does a request with its reply cost with {callers} caller(s) at a time?",
        arms=(_bus(callers), _by_hand(callers, timeout=True), _by_hand(callers, timeout=False)),
        messages=10_000,
        targets=(
            Target(
                what=f"request/reply ({how}), times queue, future and timer",
                subject="bus.request",
                peer="queue, future and timer",
                goal=1.2,
            ),
        ),
    )


BENCHMARKS = (_benchmark(1, "one caller"), _benchmark(100, "100 callers"))

if __name__ == "__main__":
    main(BENCHMARKS)
