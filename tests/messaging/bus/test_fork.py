"""A child that was forked from a process with a running bus."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from neuralcore import Forked, MessageBus
from neuralcore.messaging.forking import NoFork

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]

URLS = ["native://", "memory://", "sqlite://{}/bus.db"]


async def refusals(bus):
    """What each call of a bus raises in this process."""
    found = []
    calls = [
        lambda: bus.publish("jobs", 1),
        lambda: bus.publish_many([("jobs", 1)]),
        lambda: bus.request("jobs", 1, timeout=1),
        lambda: bus.subscribe("jobs", print, group="g").ready(),
        lambda: bus.stream("jobs", group="g"),
    ]
    for call in calls:
        try:
            await asyncio.wait_for(call(), 5)
        except BaseException as error:
            found.append(type(error).__name__)
        else:
            found.append("nothing")
    report = await bus.close()
    return [*found, report.drained]


def in_child(work):
    """What it answers in a forked child."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a child that hangs is not to hang its parent
        try:
            os.write(write, repr(work()).encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


@pytest.mark.parametrize("url", URLS)
def test_every_call_says_so_and_the_parent_goes_on(url, tmp_path):
    async def main():
        got = asyncio.Queue()
        async with MessageBus(url.format(tmp_path)) as bus:
            subscription = bus.subscribe("jobs", got.put, group="g")
            await subscription.ready()
            answer = await asyncio.to_thread(in_child, lambda: asyncio.run(refusals(bus)))
            await bus.publish("jobs", "after")
            message = await asyncio.wait_for(got.get(), 10)
            return answer, message.payload

    answer, payload = asyncio.run(asyncio.wait_for(main(), 40))
    assert answer == repr([Forked.__name__] * 5 + [True])
    assert payload == "after"


def test_a_bus_made_in_the_child_works(tmp_path):
    url = f"sqlite://{tmp_path}/bus.db"

    async def publish():
        async with MessageBus(url) as bus:
            return len(await bus.publish("jobs", os.getpid()))

    async def main():
        got = asyncio.Queue()
        async with MessageBus(url) as bus:
            await bus.subscribe("jobs", got.put, group="g").ready()
            answer = await asyncio.to_thread(in_child, lambda: asyncio.run(publish()))
            message = await asyncio.wait_for(got.get(), 10)
            return answer, message.payload

    answer, pid = asyncio.run(asyncio.wait_for(main(), 40))
    assert answer == "32"
    assert pid != os.getpid()


def test_nobody_forks_inside_a_gate():
    gate, inside, forked = NoFork(), threading.Event(), threading.Event()

    def hold():
        with gate:
            inside.set()
            forked.wait(0.2)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait()
    answer = in_child(gate._lock.locked)
    forked.set()
    holder.join()
    assert answer == "False"
    with gate:
        pass
