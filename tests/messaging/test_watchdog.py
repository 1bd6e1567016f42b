"""A handler that blocks its loop is named, once; nothing else is."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neuralcore import Message, MessageBus
from neuralcore.messaging.watchdog import watchdog
from neuralcore.testing import run

PATIENCE = 0.2
LONG = 6 * PATIENCE
SOON = 20.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "patience", PATIENCE)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    with caplog.at_level(logging.WARNING, "neuralcore"):
        yield lambda: [r.getMessage() for r in caplog.records if "blocks its event loop" in r.getMessage()]


def block(seconds: float = LONG) -> None:
    time.sleep(seconds)


async def test_a_handler_that_blocks_is_named_once_with_the_place(said) -> None:
    async with MessageBus() as bus:
        done = asyncio.Event()

        @bus.subscribe("work")
        async def stuck(message: Message) -> None:
            block()
            done.set()

        await bus.publish("work", 1)
        await asyncio.wait_for(done.wait(), SOON)
    (warning,) = said()
    assert "handler " in warning.splitlines()[0]
    assert "stuck" in warning.splitlines()[0]
    assert "in block" in warning
    assert Path(__file__).name in warning


async def test_each_incident_is_told(said) -> None:
    async with MessageBus() as bus:
        rest: asyncio.Queue[int] = asyncio.Queue()

        @bus.subscribe("work")
        async def stuck(number: int) -> None:
            block()
            await asyncio.sleep(PATIENCE)
            rest.put_nowait(number)

        for number in range(2):
            await bus.publish("work", number)
        for _ in range(2):
            await asyncio.wait_for(rest.get(), SOON)
    assert len(said()) == 2


async def test_the_one_that_runs_is_named_and_not_those_that_wait(said) -> None:
    async with MessageBus() as bus:
        done, both = asyncio.Event(), asyncio.Event()

        async def patient(message: Message) -> None:
            both.set()
            await done.wait()

        def stuck(message: Message) -> None:
            block()
            done.set()

        bus.subscribe("wait", patient)
        bus.subscribe("work", stuck, blocking=False)
        await bus.publish("wait", 1)
        await both.wait()
        await bus.publish("work", 1)
        await asyncio.wait_for(done.wait(), SOON)
    (warning,) = said()
    assert "stuck" in warning.splitlines()[0]
    assert "patient" not in warning.splitlines()[0]


async def test_a_task_that_is_no_handler_is_named_as_what_it_is(said) -> None:
    async with MessageBus() as bus:
        bus.subscribe("work", lambda message: None, blocking=False)

        async def compute() -> None:
            block()

        await asyncio.create_task(compute(), name="my task")
    (warning,) = said()
    assert warning.startswith("the task my task ")


@pytest.mark.parametrize("how", ["awaits", "in the pool", "a flood"])
async def test_what_does_not_block_is_not_told(said, how: str) -> None:
    async with MessageBus() as bus:
        done = asyncio.Event()
        end = time.monotonic() + LONG
        loop = asyncio.get_running_loop()

        async def awaits(message: Message) -> None:
            await asyncio.sleep(LONG)
            done.set()

        def in_the_pool(message: Message) -> None:
            block()
            loop.call_soon_threadsafe(done.set)

        async def flood(message: Message) -> None:
            if time.monotonic() > end:
                done.set()
            else:
                await bus.publish("work", 1)

        bus.subscribe("work", {"awaits": awaits, "in the pool": in_the_pool, "a flood": flood}[how])
        await bus.publish("work", 1)
        await asyncio.wait_for(done.wait(), SOON)
    assert said() == []


async def test_many_tasks_that_are_slow_only_together_are_not_told(said) -> None:
    """No one of them is to blame."""
    async with MessageBus() as bus:
        bus.subscribe("work", lambda message: None, blocking=False)

        async def compute() -> None:
            block(PATIENCE / 10)

        await asyncio.gather(*(compute() for _ in range(30)))
    assert said() == []


def watching() -> bool:
    return any(thread.name == "neuralcore watchdog" for thread in threading.enumerate())


def ends(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SOON
    while true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not true()


def test_its_thread_ends_with_the_last_bus() -> None:
    async def work() -> None:
        async with MessageBus() as bus:
            bus.subscribe("work", lambda message: None, blocking=False)
            assert watching()

    asyncio.run(work())
    assert ends(watching)
    asyncio.run(work())


def test_its_thread_ends_with_a_loop_that_left_its_bus_open() -> None:
    async def work() -> None:
        bus = MessageBus()
        bus.subscribe("work", lambda message: None, blocking=False)
        await bus.start()
        assert watching()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(work())
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert ends(watching)


def test_virtual_time_may_stand_still(said) -> None:
    async def work() -> None:
        async with MessageBus() as bus:
            bus.subscribe("work", lambda message: block(2 * PATIENCE), blocking=False)
            await bus.publish("work", 1)
            await asyncio.sleep(1)

    run(work())
    assert said() == []


FORK = """
import asyncio, logging, os, sys, threading, time, warnings
warnings.simplefilter("ignore")
from neuralcore import MessageBus
from neuralcore.messaging.watchdog import watchdog
watchdog.patience = 0.2
logging.basicConfig(format="%(process)d %(message)s", stream=sys.stdout)

async def child_work():
    async with MessageBus() as bus:
        done = asyncio.Event()
        async def of_the_child(message):
            time.sleep(1.2)
            done.set()
        bus.subscribe("work", of_the_child)
        await bus.publish("work", 1)
        await done.wait()

async def main():
    async with MessageBus() as bus:
        async def of_the_parent(message):
            pass
        bus.subscribe("work", of_the_parent)
        pid = os.fork()
        if pid == 0:
            thread = threading.Thread(target=asyncio.run, args=(child_work(),))
            thread.start()
            thread.join()
            sys.stdout.flush()
            os._exit(0)
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            await asyncio.sleep(0.01)
asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_a_watchdog_of_its_own_and_forgets_its_parents_loops() -> None:
    """To it, the loop that it was forked in would stand still for ever."""
    command = [sys.executable, "-c", textwrap.dedent(FORK)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    warnings = [line for line in done.stdout.splitlines() if "blocks its event loop" in line]
    assert len(warnings) == 1, done.stdout
    assert "of_the_child" in warnings[0]
