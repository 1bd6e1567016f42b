"""Is the core's pump worth it, against a plain ``async def`` worker over the same mailbox?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import Any

from benchmarks._cli import main
from benchmarks._harness import Arm, Benchmark, Metrics, Target, Watch
from benchmarks._sink import Sink
from neuralcore._core import Clock, Mailbox, Message, Pump, Route, Router

__all__ = ["BENCHMARKS"]

CAPACITY = 1_000
Handler = Callable[[Any], Awaitable[None]]
Worker = Callable[[Mailbox, Handler], Any]


class Unsettled:
    """A settler that nothing here ever asks."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"this benchmark settles nothing, yet {name} was called")


def _refuse(kind: str, channel: str, detail: object) -> BaseException:
    return RuntimeError(f"{kind} on {channel}")


def _failed(what: object, error: BaseException) -> None:
    raise error


def pump(mailbox: Mailbox, handler: Handler) -> Any:
    return Pump(mailbox, handler, failed=_failed, replied=lambda message, result: None)


async def plain(mailbox: Mailbox, handler: Handler) -> None:
    """The shortest worker there is: handlers share its context."""
    take, ready, ack = mailbox.take, mailbox.ready, mailbox.ack
    while True:
        message = take()
        if message is None:
            if not await ready():
                return
            continue
        await handler(message)
        ack(message)


async def isolated(mailbox: Mailbox, handler: Handler) -> None:
    """The same with what the pump promises: each message in a context of its own."""
    take, ready, ack = mailbox.take, mailbox.ready, mailbox.ack
    base = copy_context()
    while True:
        message = take()
        if message is None:
            if not await ready():
                return
            continue
        await _InContext(base.copy(), handler, message)
        ack(message)


class _InContext:
    """Drives a handler's coroutine inside a context."""

    __slots__ = ("_context", "_handler", "_message")

    def __init__(self, context: Context, handler: Handler, message: Message) -> None:
        self._context = context
        self._handler = handler
        self._message = message

    def __await__(self) -> Any:
        run = self._context.run
        coroutine: Any = self._handler(self._message)
        try:
            yielded = run(coroutine.send, None)
            while True:
                yield yielded
                yielded = run(coroutine.send, None)
        except StopIteration:
            return


def _arm(name: str, worker: Worker) -> Arm:
    async def run(n: int, sink: Sink) -> Metrics:
        clock = Clock()

        def missing(channel: str) -> Route:
            route = Route(router, channel)
            router.add(route)
            return route

        router = Router(clock, missing=missing, error=_refuse)
        mailbox = Mailbox(clock, Unsettled(), capacity=CAPACITY)
        router.attach("c", mailbox)
        task = asyncio.get_running_loop().create_task(worker(mailbox, sink.awaited()))
        publish = router.publish
        with (watch := Watch()):
            for i in range(n):
                await publish("c", {"i": i})
            mailbox.close()
            await task
        return watch.per(n)

    return Arm(name=name, run=run)


BENCHMARKS = (
    Benchmark(
        name="pump",
        question=__doc__,
        arms=(_arm("pump", pump), _arm("async def", plain), _arm("async def, contexts", isolated)),
        messages=50_000,
        targets=(
            Target(what="pump, times an async def worker", subject="pump", peer="async def", goal=1.1),
            Target(
                what="pump, times an async def worker with contexts",
                subject="pump",
                peer="async def, contexts",
                goal=1.3,
            ),
        ),
    ),
)

if __name__ == "__main__":
    main(BENCHMARKS)
