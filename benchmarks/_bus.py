"""The bus as several questions use it: its public API only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks._harness import Arm, Metrics, Watch
from benchmarks._sink import Gate, Sink
from neuralcore.messaging.bus import MessageBus

__all__ = ["CHANNEL", "bus_arm", "bus_backlog"]

CHANNEL = "bench.messages"


def bus_arm(
    capacity: int,
    *,
    name: str = "bus",
    handler: Callable[[Sink], Any] = lambda sink: sink.awaited(),
    **subscription: Any,
) -> Arm:
    """``await publish`` one by one; the time ends when ``unsubscribe`` has drained the last message."""

    async def run(n: int, sink: Sink) -> Metrics:
        async with MessageBus() as bus:
            subscribed = bus.subscribe(CHANNEL, handler(sink), capacity=capacity, **subscription)
            await subscribed.ready()
            publish = bus.publish
            with (watch := Watch()):
                for i in range(n):
                    await publish(CHANNEL, {"i": i})
                await subscribed.unsubscribe(timeout=60.0)
        return watch.per(n)

    return Arm(name=name, run=run)


def bus_backlog(name: str = "bus") -> Arm:
    """Every message enters before the first one is handled."""

    async def run(n: int, sink: Sink) -> Metrics:
        gate = Gate()
        async with MessageBus() as bus:
            subscribed = bus.subscribe(CHANNEL, sink.gated(gate), capacity=n)
            await subscribed.ready()
            publish = bus.publish
            with (watch := Watch()):
                for i in range(n):
                    await publish(CHANNEL, {"i": i})
                gate.open()
                await subscribed.unsubscribe(timeout=60.0)
        return watch.per(n)

    return Arm(name=name, run=run)
