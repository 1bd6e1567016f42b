"""Handlers: where they run, in which context, and that everything behaves as in any task."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from itertools import pairwise

import pytest

from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.errors import BadHandler
from neuralcore.messaging.retry import RetryPolicy
from neuralcore.testing import Recorder, idle, virtual, virtual_bus

mine = contextvars.ContextVar("mine", default="nobody's")


def test_sync_handlers_run_in_a_bounded_pool_with_the_messages_context():
    async def main():
        seen, most, running, lock = [], 0, 0, threading.Lock()
        together = threading.Barrier(2)

        def handle(message):
            nonlocal most, running
            with lock:
                running += 1
                most = max(most, running)
            together.wait(timeout=20)
            mine.set(f"set by {message.payload}")
            with lock:
                running -= 1
                seen.append((before, threading.get_ident()))
            assert mine.get() == f"set by {message.payload}"

        before = "the subscriber's"
        mine.set(before)
        async with MessageBus(executor_threads=2) as bus:
            bus.subscribe("jobs", handle, concurrency=6)
            for n in range(12):
                await bus.publish("jobs", n)
        assert (len(seen), most) == (12, 2)
        assert threading.get_ident() not in {ident for _, ident in seen}
        assert mine.get() == before

    asyncio.run(main())


def test_sync_handlers_declared_non_blocking_run_on_the_loop():
    async def main():
        threads = []
        async with MessageBus() as bus:
            bus.subscribe("jobs", lambda message: threads.append(threading.get_ident()), blocking=False)
            await bus.publish("jobs", 1)
        assert threads == [threading.get_ident()]

    asyncio.run(main())


@virtual
async def test_a_sync_handlers_return_value_is_the_reply_and_its_error_a_failed_attempt():
    async with virtual_bus() as bus:
        attempts = []

        def handle(message):
            attempts.append(message.attempt)
            if message.attempt == 1:
                raise ValueError("on purpose")
            return message.payload * 2

        for blocking, channel in ((True, "threads"), (False, "loop")):
            bus.subscribe(channel, handle, blocking=blocking, retry=RetryPolicy(base=0.1))
            assert await bus.request(channel, 21, timeout=60.0) == 42
        assert attempts == [1, 2, 1, 2]


@virtual
async def test_each_message_has_a_context_of_its_own():
    async with virtual_bus() as bus:
        seen = []

        async def handle(message):
            seen.append(mine.get())
            mine.set(f"set by {message.payload}")
            await asyncio.sleep(0.01)
            seen.append(mine.get())

        mine.set("the subscriber's")
        bus.subscribe("jobs", handle)
        mine.set("later")
        for n in range(2):
            await bus.publish("jobs", n)
        await asyncio.sleep(1)
        assert seen == ["the subscriber's", "set by 0", "the subscriber's", "set by 1"]


@virtual
async def test_tasks_timeouts_and_groups_work_in_a_handler():
    async with virtual_bus() as bus:
        done = []

        async def handle(message):
            assert isinstance(asyncio.current_task(), asyncio.Task)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 1.0)
            child = asyncio.create_task(asyncio.sleep(1.0, "child"))
            done.append(await child)
            done.extend(await asyncio.gather(asyncio.sleep(0.1, "a"), asyncio.sleep(0.2, "b")))
            async with asyncio.Lock():
                done.append("lock")

        bus.subscribe("jobs", handle)
        await bus.publish("jobs", 1)
        await asyncio.sleep(10)
        assert done == ["child", "a", "b", "lock"]


@virtual
async def test_a_handler_that_swallows_its_own_cancellation_succeeds():
    async with virtual_bus() as bus:
        calls = []

        async def handle(message):
            calls.append(message.attempt)
            asyncio.current_task().cancel()
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                return

        bus.subscribe("jobs", handle)
        await bus.publish("jobs", 1)
        await bus.publish("jobs", 2)
        await asyncio.sleep(60)
        assert calls == [1, 1]


@virtual
async def test_a_flood_does_not_starve_the_loop():
    async with virtual_bus() as bus:
        handled = 0

        async def handle(message):
            nonlocal handled
            handled += 1

        bus.subscribe("jobs", handle, capacity=10_000)
        await bus.publish_many([("jobs", n) for n in range(5000)])
        turns = [handled]
        while handled < 5000:
            await asyncio.sleep(0)
            turns.append(handled)
        assert max(after - before for before, after in pairwise(turns)) <= 512


@pytest.mark.parametrize(
    "handler",
    [
        lambda: None,
        lambda a, b, c: None,
        lambda *, message: None,
        "not callable",
        None.__class__,
    ],
)
@virtual
async def test_a_wrong_signature_is_an_error_when_subscribing(handler):
    async with virtual_bus() as bus:
        with pytest.raises((BadHandler, TypeError)):
            bus.subscribe("jobs", handler)
        assert bus.metrics().subscriptions == ()


@virtual
async def test_payloads_are_passed_by_reference_and_isolate_copies():
    async with virtual_bus() as bus:
        shared, isolated = Recorder(), [Recorder(), Recorder()]
        bus.create_channel("isolated", isolate=True)
        bus.subscribe("shared", shared.handle)
        for recorder in isolated:
            bus.subscribe("isolated", recorder.handle)
        payload = {"list": [1]}
        await bus.publish("shared", payload)
        await bus.publish("isolated", payload)
        payload["list"].append(2)
        await idle()
        assert shared.payloads[0] is payload
        copies = [recorder.payloads[0] for recorder in isolated]
        assert copies == [{"list": [1]}] * 2
        assert copies[0] is not copies[1]


@virtual
async def test_a_decorated_function_stays_a_function_and_may_be_subscribed_before_start():
    from neuralcore.testing.bus import bus_in

    bus = bus_in(asyncio.get_running_loop())
    got = []

    @bus.subscribe("jobs")
    async def handle(number: int) -> int:
        got.append(number)
        return number + 1

    async with bus:
        await bus.publish("jobs", 1)
        await idle()
        assert await handle(41) == 42
    assert got == [1, 41]


@virtual
async def test_a_blocked_worker_does_not_stop_the_others():
    async with virtual_bus() as bus:
        gate = asyncio.Event()
        got = Recorder(lambda message: gate.wait() if message.payload == 0 else None)
        bus.subscribe("jobs", got.handle, concurrency=2)
        for n in range(100):
            await bus.publish("jobs", n)
        await idle()
        assert sorted(got.payloads) == list(range(100))
        gate.set()
