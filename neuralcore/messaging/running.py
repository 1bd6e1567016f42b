"""A bus as a program: ``bus.run()`` owns the loop and the signals."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from neuralcore.messaging.closing import CloseReport
from neuralcore.messaging.context import log
from neuralcore.messaging.errors import BusError

if TYPE_CHECKING:
    from neuralcore.messaging.bus import MessageBus

__all__ = ["run"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(bus: MessageBus, *, timeout: float) -> CloseReport:
    """Serve until the first signal, then drain; a second signal cuts the drain short."""
    if threading.current_thread() is not threading.main_thread():
        raise BusError("run() handles signals, which only the main thread can: use `async with bus` in other threads")
    if asyncio._get_running_loop() is not None:
        raise BusError("run() makes an event loop of its own, and one runs here: use `async with bus` in it")
    return asyncio.run(_serve(bus, timeout))


async def _serve(bus: MessageBus, timeout: float) -> CloseReport:
    first, second = asyncio.Event(), asyncio.Event()
    with _signals(first, second):
        await bus.start()
        log.info("%s is running", bus.name)
        await first.wait()
        log.info("%s is closing; a second signal cuts it short", bus.name)
        return await _close(bus, second, timeout)


async def _close(bus: MessageBus, hurry: asyncio.Event, timeout: float) -> CloseReport:
    closing = asyncio.ensure_future(bus.close(timeout=timeout))
    hurried = asyncio.ensure_future(hurry.wait())
    await asyncio.wait({closing, hurried}, return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    if not closing.done():
        bus.hurry()
    return await closing


@contextmanager
def _signals(first: asyncio.Event, second: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def received() -> None:
        (second if first.is_set() else first).set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, received)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
