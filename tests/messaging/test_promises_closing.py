"""Closing: nothing acknowledged is lost, nothing unacknowledged is reported as done."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.errors import BusError, Closed
from neuralcore.testing import Recorder, idle, virtual, virtual_bus
from neuralcore.testing.bus import bus_in

BOTH = pytest.mark.parametrize("url", ["native://", "memory://"])


def new_bus(url="native://", **options):
    return bus_in(asyncio.get_running_loop(), url, **options)


@virtual(seeds=2)
async def test_draining_on_native_handles_the_queued_messages_too():
    got = Recorder(lambda message: asyncio.sleep(0.01))
    bus = new_bus()
    await bus.start()
    bus.subscribe("jobs", got.handle)
    for n in range(100):
        await bus.publish("jobs", n)
    report = await bus.close(drain=True, timeout=60.0)
    assert got.payloads == list(range(100))
    assert (report.drained, report.abandoned, report.released) == (True, 0, 0)
    assert report.handled == 100


@virtual
async def test_draining_waits_for_retries_and_delayed_messages_inside_the_deadline():
    def fail_once(message):
        if message.attempt == 1 and message.payload == "retried":
            raise RuntimeError("on purpose")

    from neuralcore.messaging.retry import RetryPolicy

    got = Recorder(fail_once)
    bus = new_bus()
    await bus.start()
    bus.subscribe("jobs", got.handle, retry=RetryPolicy(base=2.0, jitter=False))
    await bus.publish("jobs", "retried")
    await bus.publish("jobs", "delayed", delay=3.0)
    report = await bus.close(drain=True, timeout=60.0)
    assert got.payloads == ["retried", "retried", "delayed"]
    assert report.drained


@virtual
async def test_the_deadline_cuts_the_drain_and_the_report_says_what_is_gone():
    got = Recorder(lambda message: asyncio.Event().wait())
    bus = new_bus()
    await bus.start()
    bus.subscribe("jobs", got.handle)
    for n in range(5):
        await bus.publish("jobs", n)
    before = asyncio.get_running_loop().time()
    report = await bus.close(drain=True, timeout=7.0)
    assert asyncio.get_running_loop().time() - before == pytest.approx(7.0, abs=1.0)
    assert (report.drained, report.handled, report.released, report.abandoned) == (False, 0, 0, 5)


@BOTH
@virtual
async def test_new_publishers_are_refused_and_running_handlers_may_publish_and_reply(url):
    gate, words = asyncio.Event(), []

    async def act(message):
        await gate.wait()
        words.append(await bus.publish("last.words", "published while closing"))
        inner = asyncio.create_task(from_a_child())
        words.append(await inner)
        return "answered while closing"

    async def from_a_child():
        return await bus.publish("last.words", "from a task that a handler started")

    bus = new_bus(url)
    await bus.start()
    held = Recorder(act)
    await bus.subscribe("jobs", held.handle, group="g").ready()
    asking = asyncio.create_task(bus.request("jobs", 1, timeout=100.0))
    await held.wait(1)
    closing = asyncio.create_task(bus.close(drain=True, timeout=60.0))
    await idle()
    with pytest.raises(Closed):
        await bus.publish("jobs", "from outside")
    with pytest.raises(Closed):
        await asyncio.wrap_future(bus.publish_threadsafe("jobs", "from a thread"))
    with pytest.raises(Closed):
        bus.subscribe("jobs", held.handle, group="g")
    gate.set()
    report = await closing
    assert (report.drained, report.handled) == (True, 1)
    assert len([id for id in words if id]) == 2
    assert await asking == "answered while closing"


@BOTH
@virtual(seeds=3)
async def test_closing_twice_and_from_many_tasks_is_harmless(url):
    bus, got = new_bus(url), Recorder(lambda message: asyncio.sleep(1.0))
    await bus.start()
    await bus.subscribe("jobs", got.handle, group="g").ready()
    await bus.publish("jobs", 1)
    await got.wait(1)
    reports = await asyncio.gather(*(bus.close(timeout=60.0) for _ in range(4)))
    assert all(report is reports[0] for report in reports)
    assert await bus.close() is reports[0]
    assert reports[0].handled == 1


@virtual
async def test_leaving_the_context_drains():
    got = Recorder(lambda message: asyncio.sleep(0.1))
    async with virtual_bus() as bus:
        bus.subscribe("jobs", got.handle)
        for n in range(20):
            await bus.publish("jobs", n)
    assert got.payloads == list(range(20))


@virtual
async def test_a_bus_that_never_started_closes_and_stays_closed():
    bus = new_bus()
    assert (await bus.close()).drained
    with pytest.raises(Closed):
        await bus.start()


@virtual
async def test_closing_inside_a_handler_is_refused_not_a_deadlock():
    async with virtual_bus() as bus:
        refused = []

        async def handle(message):
            try:
                await bus.close()
            except BusError as error:
                refused.append(error)

        bus.subscribe("jobs", handle)
        await bus.publish("jobs", 1)
        await idle()
        assert len(refused) == 1
        assert await bus.publish("jobs", 2) is not None


@virtual
async def test_nothing_acknowledged_is_lost_nothing_unacknowledged_is_reported_as_done():
    from neuralcore.testing.memory import MemoryStore, MemoryTransport

    store, handled = MemoryStore(), []

    async def act(message):
        await asyncio.sleep(0.05)
        handled.append(message.payload)

    bus = new_bus(MemoryTransport(store))
    await bus.start()
    await bus.subscribe("jobs", Recorder(act).handle, group="g", concurrency=3).ready()
    for n in range(50):
        await bus.publish("jobs", n)
    await asyncio.sleep(0.32)
    report = await bus.close(drain=True, timeout=0.02)
    before = list(handled)
    async with virtual_bus(MemoryTransport(store)) as second:
        await second.subscribe("jobs", Recorder(act).handle, group="g", concurrency=3).ready()
        await asyncio.sleep(60)
    assert sorted(handled) == list(range(50)), "each exactly once: what was released came again, the rest did not"
    assert report.abandoned == 0
    assert report.handled <= len(before)


@BOTH
@pytest.mark.parametrize(("timeout", "finished"), [(60.0, [1]), (5.0, [])])
@virtual
async def test_draining_waits_for_a_handler_that_has_settled_its_message_early(url, timeout, finished):
    done = []

    async def act(message):
        await message.ack()
        await asyncio.sleep(10.0)
        done.append(message.payload)

    bus = new_bus(url)
    await bus.start()
    got = Recorder(act)
    await bus.subscribe("jobs", got.handle, group="g").ready()
    await bus.publish("jobs", 1)
    await got.wait(1)
    await idle()
    report = await bus.close(timeout=timeout)
    assert done == finished
    assert (report.drained, report.interrupted) == (bool(finished), 1 - len(finished))
    assert (report.released, report.abandoned) == (0, 0)


@BOTH
@virtual(seeds=3)
async def test_unsubscribing_finishes_what_is_in_flight(url):
    done = []

    async def act(message):
        await asyncio.sleep(1.0)
        done.append(message.payload)

    async with virtual_bus(url) as bus:
        held = Recorder(act)
        subscription = bus.subscribe("jobs", held.handle, group="g", concurrency=2)
        await subscription.ready()
        for n in range(2):
            await bus.publish("jobs", n)
        await held.wait(2)
        await subscription.unsubscribe(timeout=60.0)
        assert sorted(done) == [0, 1]
        assert not subscription.active


@virtual
async def test_unsubscribing_without_drain_returns_what_is_in_flight():
    async with virtual_bus() as bus:
        held, other = Recorder(lambda message: asyncio.Event().wait()), Recorder()
        leaving = bus.subscribe("jobs", held.handle, group="g")
        await bus.publish("jobs", 1)
        await held.wait(1)
        bus.subscribe("jobs", other.handle, group="g")
        await leaving.unsubscribe(drain=False)
        await other.wait(1)
        assert other.attempts == [1]


@virtual
async def test_a_stream_that_is_closed_gives_back_what_it_holds():
    async with virtual_bus() as bus:
        other = Recorder()
        async with bus.stream("jobs", group="g") as stream:
            await bus.publish("jobs", 1)
            message = await stream.__anext__()
            bus.subscribe("jobs", other.handle, group="g")
            await idle()
            assert other.payloads == []
        await other.wait(1)
        assert other.attempts == [1]
        assert not message.settled or message.attempt == 1


@virtual
async def test_close_cancels_no_one_elses_tasks():
    bystander = asyncio.create_task(asyncio.sleep(1000, "done"))
    async with virtual_bus() as bus:
        bus.subscribe("jobs", Recorder().handle)
        await bus.publish("jobs", 1)
    assert not bystander.done()
    bystander.cancel()


def test_close_installs_no_signal_handlers():
    async def main():
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        async with MessageBus() as bus:
            bus.subscribe("jobs", Recorder().handle)
            await bus.publish("jobs", 1)
            assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before

    asyncio.run(main())


PROGRAM = """
import asyncio, sys
from neuralcore.messaging.bus import MessageBus

bus = MessageBus()

@bus.subscribe("jobs")
async def handle(number: int):
    if number == 0:
        print("running", flush=True)
        await bus.publish("jobs", 1)
    await asyncio.sleep(0.2)
    print("handled", number, flush=True)

@bus.subscribe("start")
async def begin(payload: None):
    await bus.publish("jobs", 0)

async def kick():
    while True:
        try:
            return await bus.publish("start", None)
        except Exception:
            await asyncio.sleep(0.01)

import threading
threading.Thread(target=lambda: asyncio.run(kick()), daemon=True).start()
report = bus.run(timeout=20.0)
print("closed", report.drained, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_drains_on_a_signal(number):
    program = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "running\n"
        program.send_signal(number)
        out, _ = program.communicate(timeout=30)
    finally:
        program.kill()
    assert out.splitlines() == ["handled 0", "handled 1", "closed True"]
    assert program.returncode == 0
