"""An event loop in virtual time: whole programs run in milliseconds, and a run repeats by its seed.

Time stands still while anything can run and leaps to the next timer when nothing can. ``loop.clock`` is the clock to
inject into what is under test; it moves with ``loop.time()``, and ``loop.clock.jump(ns)`` moves its wall clock alone.

>>> async def main():
...     loop = asyncio.get_running_loop()
...     before = loop.time()
...     await asyncio.sleep(3600)
...     return loop.time() - before
>>> run(main())
3600.0
"""

from __future__ import annotations

import asyncio
import functools
import random
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, NoReturn, ParamSpec, TypeVar, overload

from neuralcore._core import Clock
from neuralcore.testing.stacks import describe

__all__ = ["Deadlock", "VirtualLoop", "run", "virtual"]

P = ParamSpec("P")
T = TypeVar("T")

START_WALL_NS = 1_750_000_000 * 10**9
START_MONOTONIC_NS = 1_000 * 10**9
DAY = 86_400.0
TURNS = 1_000_000
LEAP_NS = 1_000
"""Time that advances by less in a turn stands still: timers that are always due now must not look like progress."""

REAL_WORLD = (
    "add_reader",
    "add_signal_handler",
    "add_writer",
    "connect_accepted_socket",
    "connect_read_pipe",
    "connect_write_pipe",
    "create_connection",
    "create_datagram_endpoint",
    "create_server",
    "create_unix_connection",
    "create_unix_server",
    "getaddrinfo",
    "getnameinfo",
    "remove_reader",
    "remove_signal_handler",
    "remove_writer",
    "sendfile",
    "sock_accept",
    "sock_connect",
    "sock_recv",
    "sock_recv_into",
    "sock_recvfrom",
    "sock_sendall",
    "sock_sendfile",
    "sock_sendto",
    "start_tls",
    "subprocess_exec",
    "subprocess_shell",
)


class Deadlock(RuntimeError):
    """Nothing can run and nothing is scheduled, or virtual time ran past its limit, or stands still in a busy loop."""


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module's docstring. Not for sockets, pipes, signals, subprocesses or other threads: each says so."""

    clock: Clock

    def __init__(self, *, seed: int | None = None, limit: float = 30 * DAY, turns: int = TURNS) -> None:
        """With a seed, callbacks that are ready together run in a shuffled order that the seed repeats.

        ``limit``: seconds of virtual time after which the run counts as deadlocked (a poller may never let it idle).
        ``turns``: of the loop, after which it does when time stood still (something may always be ready).
        """
        super().__init__()
        self.seed = seed
        self.clock = Clock(manual=True, time_ns=START_WALL_NS, monotonic_ns=START_MONOTONIC_NS)
        self._clock_resolution = 1e-9
        self._selector = _Leap(self, limit, turns)
        self._idle: list[asyncio.Future[None]] = []
        if seed is not None:
            self._ready = _Shuffled(random.Random(seed))

    def time(self) -> float:
        return self.clock.monotonic_ns() / 1e9

    async def idle(self) -> None:
        """Return when everything that can happen at this time has happened; time stands still."""
        waiter: asyncio.Future[None] = self.create_future()
        self._idle.append(waiter)
        await waiter

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        owner = self._thread_id  # type: ignore[attr-defined]
        if owner is not None and owner != threading.get_ident():
            raise RuntimeError(
                f"thread {threading.current_thread().name!r} called into a VirtualLoop, whose runs then "
                "would not repeat: use loop.run_in_executor (it runs inline here), or a real loop for tests of threads"
            )
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run it inline, as a callback of its own: without a running loop and in an empty context, like a thread."""
        self._check_closed()  # type: ignore[attr-defined]
        future: asyncio.Future[T] = self.create_future()
        self.call_soon(_inline, self, future, functools.partial(func, *args), context=Context())
        return future

    def _process_events(self, event_list: object) -> None:
        """Nothing outside the loop makes events."""

    def _write_to_self(self) -> None:
        """Nothing outside the loop needs to wake it."""


def _refuse(name: str) -> Callable[..., NoReturn]:
    def refuse(self: VirtualLoop, *args: object, **kwargs: object) -> NoReturn:
        raise RuntimeError(
            f"loop.{name} reaches outside the process, where time is real: "
            "a VirtualLoop has no sockets, pipes, signals or subprocesses"
        )

    return refuse


for _name in REAL_WORLD:
    setattr(VirtualLoop, _name, _refuse(_name))


def _inline(loop: VirtualLoop, future: asyncio.Future[Any], func: Callable[[], Any]) -> None:
    if future.cancelled():
        return
    asyncio._set_running_loop(None)
    try:
        outcome, error = func(), None
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as exc:  # noqa: BLE001 - it travels on, in the future
        outcome, error = None, exc
    finally:
        asyncio._set_running_loop(loop)
    if error is None:
        future.set_result(outcome)
    elif isinstance(error, StopIteration):
        future.set_exception(RuntimeError("StopIteration cannot travel through a future"))
    else:
        future.set_exception(error)


class _Leap:
    """Stands where the loop expects a selector: called when nothing is ready, it moves time instead of waiting."""

    def __init__(self, loop: VirtualLoop, limit: float, turns: int) -> None:
        self._loop = loop
        self._limit_ns = START_MONOTONIC_NS + int(limit * 1e9)
        self._turns = turns
        self._turned = 0

    def select(self, timeout: float | None) -> tuple[()]:
        loop = self._loop
        self._turn()
        if timeout == 0:
            return ()
        if loop._idle:
            waiters, loop._idle = loop._idle, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
            return ()
        if timeout is None:
            raise Deadlock(f"nothing can run and nothing is scheduled{self._told()}")
        leap = max(1, round(timeout * 1e9))
        loop.clock.advance(leap)
        if leap >= LEAP_NS:
            self._turned = 0
        if loop.clock.monotonic_ns() > self._limit_ns:
            self._limit_ns = sys.maxsize
            raise Deadlock(f"virtual time ran past its limit{self._told()}")
        return ()

    def _turn(self) -> None:
        self._turned += 1
        if self._turned > self._turns:
            self._turned = 0
            raise Deadlock(f"time stood still for {self._turns} turns of the loop{self._told()}")

    def _told(self) -> str:
        seed = "" if self._loop.seed is None else f" (seed {self._loop.seed})"
        return f"{seed}; pending tasks:\n{describe(asyncio.all_tasks(self._loop))}"


class _Shuffled(deque[Any]):
    """The ready queue: each generation of callbacks leaves in a random order, none overtakes a whole generation."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng
        self._generation = 0

    def popleft(self) -> Any:
        if self._generation <= 0:
            self._generation = len(self)
        index = self._rng.randrange(self._generation)
        self._generation -= 1
        self.rotate(-index)
        chosen = super().popleft()
        self.rotate(index)
        return chosen


def run(
    main: Coroutine[Any, Any, T],
    *,
    seed: int | None = None,
    limit: float = 30 * DAY,
    turns: int = TURNS,
    debug: bool = False,
) -> T:
    """Like ``asyncio.run``, in virtual time. A failure prints the seed that repeats it."""
    loop = VirtualLoop(seed=seed, limit=limit, turns=turns)
    loop.set_debug(debug)
    try:
        return loop.run_until_complete(main)
    except BaseException:
        if seed is not None:
            sys.stderr.write(f"neuralcore.testing: repeat this with seed={seed}\n")
        raise
    finally:
        _wind_up(loop)


@overload
def virtual(test: Callable[P, Coroutine[Any, Any, object]], /) -> Callable[P, None]: ...


@overload
def virtual(
    *, seeds: int = 0, limit: float = 30 * DAY
) -> Callable[[Callable[P, Coroutine[Any, Any, object]]], Callable[P, None]]: ...


def virtual(
    test: Callable[..., Coroutine[Any, Any, object]] | None = None, /, *, seeds: int = 0, limit: float = 30 * DAY
) -> Callable[..., Any]:
    """Make an ``async def`` test a plain one that runs in virtual time: once, or once for each of ``seeds`` seeds."""
    if test is None:
        return functools.partial(virtual, seeds=seeds, limit=limit)

    @functools.wraps(test)
    def plain(*args: Any, **kwargs: Any) -> None:
        for seed in range(seeds) if seeds else (None,):
            run(test(*args, **kwargs), seed=seed, limit=limit)

    return plain


def _wind_up(loop: VirtualLoop) -> None:
    """Cancel what is left, as ``asyncio.run`` does. What resists even that is named, not awaited for ever."""
    try:
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        if pending:
            loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    except Deadlock as stuck:
        sys.stderr.write(f"neuralcore.testing: tasks did not end when cancelled: {stuck}\n")
    finally:
        asyncio.set_event_loop(None)
        loop.close()
