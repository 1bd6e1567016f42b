"""What the parts of one bus share: its clock, its home loop, its randomness, its counters."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, get_args

from neuralcore._core import Clock
from neuralcore.messaging.channel import ChannelConfig, Overflow
from neuralcore.messaging.checks import MAX_COUNT, check_choice, check_count, check_type
from neuralcore.messaging.errors import LoopClosed
from neuralcore.messaging.middleware import Middleware
from neuralcore.messaging.retry import RetryPolicy

__all__ = ["BusContext", "handling", "log"]

log = logging.getLogger("neuralcore")

handling: ContextVar[object] = ContextVar("neuralcore.handling", default=None)
"""Inside a handler, and in whatever it starts: the BusContext whose message it handles."""


@dataclass(eq=False, slots=True, kw_only=True)
class BusContext:
    bus_id: str
    clock: Clock
    rng: random.Random
    executor: Executor
    capacity: int
    overflow: Overflow
    retry: RetryPolicy
    auto_create: bool
    middleware: tuple[Middleware, ...] = ()
    configs: dict[str, ChannelConfig] = field(default_factory=dict)
    """Channels that were configured; others have the defaults."""
    counters: Counter[str] = field(default_factory=Counter)
    """Rare events only; their lock is ``_lock``."""
    gauges: dict[str, float] = field(default_factory=dict)
    """Of the transport."""
    _loop: asyncio.AbstractEventLoop | None = None
    _thread: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        check_type("clock", self.clock, Clock)
        check_type("rng", self.rng, random.Random)
        check_count("capacity", self.capacity, most=MAX_COUNT)
        check_choice("overflow", self.overflow, get_args(Overflow))
        check_type("retry", self.retry, RetryPolicy)
        check_type("auto_create", self.auto_create, bool)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop the bus was started on. Raises LoopClosed when it has ended without closing the bus."""
        assert self._loop is not None, "the bus binds its loop before anything asks for it"
        self.check_loop()
        return self._loop

    def check_loop(self) -> None:
        """Raises LoopClosed when the bus was started on a loop that has ended without closing it."""
        if self._loop is not None and self._loop.is_closed():
            raise LoopClosed

    def config(self, channel: str) -> ChannelConfig:
        return self.configs.get(channel) or ChannelConfig(channel)

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._thread = loop, threading.get_ident()

    def at_home(self) -> bool:
        """This is the thread of the home loop."""
        return threading.get_ident() == self._thread

    def call_home(self, callback: Callable[..., object], *args: Any) -> None:
        """Run a callback on the home loop: now when already there, else soon."""
        if self.at_home():
            callback(*args)
        else:
            self.loop.call_soon_threadsafe(callback, *args)

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Start a task on the home loop, from a place that cannot wait. False when that loop has ended."""
        try:
            self.call_home(lambda: self.loop.create_task(work()))
        except (LoopClosed, RuntimeError):
            return False
        return True

    def count(self, name: str, amount: int = 1) -> None:
        with self._lock:
            self.counters[name] += amount

    def gauge(self, name: str, value: float) -> None:
        with self._lock:
            self.gauges[name] = value
