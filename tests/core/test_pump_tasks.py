"""Handlers are ordinary asyncio code: tasks, timeouts, groups, generators, stacks, debug mode."""

from __future__ import annotations

import asyncio
import builtins
import io
import sys
import traceback

import pytest


async def run(rig, handler, *payloads, **options):
    mailbox = rig.mailbox("jobs")
    for payload in payloads or (None,):
        rig.publish_nowait("jobs", payload)
    mailbox.close()
    task = rig.start(mailbox, handler, **options)
    await asyncio.wait_for(asyncio.shield(task), 5)
    if rig.failures:
        raise rig.failures[0][1]
    assert mailbox.stats().acked == len(payloads or (None,))
    return task


async def test_the_current_task_is_the_pump_s(rig):
    seen = []

    async def handler(message):
        seen.append(asyncio.current_task())
        await asyncio.sleep(0)
        seen.append(asyncio.current_task())

    task = await run(rig, handler, 1, 2)
    assert seen == [task] * 4


async def test_sleep_and_events_and_futures(rig):
    async def handler(message):
        await asyncio.sleep(0.001)
        event = asyncio.Event()
        asyncio.get_running_loop().call_soon(event.set)
        await event.wait()
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, "value")
        assert await future == "value"

    await run(rig, handler, 1, 2)


async def test_an_exception_of_a_future_is_raised_where_it_is_awaited(rig):
    caught = []

    async def handler(message):
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_exception, LookupError("inner"))
        try:
            await future
        except LookupError as error:
            caught.append(error.args)

    await run(rig, handler)
    assert caught == [("inner",)]


async def test_wait_for(rig):
    async def handler(message):
        assert await asyncio.wait_for(asyncio.sleep(0, "in time"), 1) == "in time"
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 0.001)

    await run(rig, handler, 1, 2)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="new in Python 3.11")
@pytest.mark.parametrize("pump_timeout", [None, 5.0])
async def test_timeout_blocks(rig, pump_timeout):
    async def handler(message):
        async with asyncio.timeout(1):
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        assert asyncio.current_task().cancelling() == 0

    await run(rig, handler, 1, 2, timeout=pump_timeout)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="new in Python 3.11")
async def test_a_timeout_block_inside_a_handler_that_is_timed_out_itself(rig):
    async def handler(message):
        async with asyncio.timeout(5):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError, match=r"0\.01"):
        await run(rig, handler, timeout=0.01)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="new in Python 3.11")
async def test_task_groups(rig):
    async def handler(message):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asyncio.sleep(0, number)) for number in range(3)]
        assert [task.result() for task in tasks] == [0, 1, 2]
        with pytest.raises(builtins.ExceptionGroup) as caught:
            await failing_group()
        assert [type(error) for error in caught.value.exceptions] == [LookupError]

    async def failing_group():
        async with asyncio.TaskGroup() as group:
            group.create_task(raising())
            await asyncio.Event().wait()

    async def raising():
        raise LookupError

    await run(rig, handler, 1, 2)


async def test_gather_and_create_task(rig):
    async def handler(message):
        task = asyncio.create_task(asyncio.sleep(0, "task"))
        assert await asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(0, 2)) == [1, 2]
        assert await task == "task"

    await run(rig, handler, 1, 2)


async def test_to_thread(rig):
    async def handler(message):
        assert await asyncio.to_thread(lambda: message.payload + 1) == message.payload + 1

    await run(rig, handler, 1, 2)


async def test_async_generators_and_context_managers(rig):
    closed = []

    class Manager:
        async def __aenter__(self):
            await asyncio.sleep(0)
            return self

        async def __aexit__(self, *error):
            await asyncio.sleep(0)
            closed.append("manager")

    async def generate():
        try:
            for number in range(10):
                await asyncio.sleep(0)
                yield number
        finally:
            await asyncio.sleep(0)
            closed.append("generator")

    async def handler(message):
        async with Manager():
            generator = generate()
            async for number in generator:
                if number == 2:
                    break
            await generator.aclose()
        assert [number async for number in generate()] == list(range(10))

    await run(rig, handler)
    assert closed == ["generator", "manager", "generator"]


async def test_locks_and_queues_are_shared_between_workers(rig, soon):
    mailbox = rig.mailbox("jobs")
    lock = asyncio.Lock()
    inside = []

    async def handler(message):
        async with lock:
            inside.append("in")
            await asyncio.sleep(0)
            inside.append("out")

    tasks = [rig.start(mailbox, handler) for _ in range(3)]
    for _ in range(6):
        rig.publish_nowait("jobs", None)
    mailbox.close()
    await soon(asyncio.gather(*tasks))
    assert inside == ["in", "out"] * 6


async def test_the_stack_of_a_waiting_handler_can_be_read(rig, turns):
    mailbox = rig.mailbox("jobs")

    async def waits_here():
        await asyncio.Event().wait()

    async def my_handler(message):
        await waits_here()

    pump = rig.pump(mailbox, my_handler)
    task = asyncio.get_running_loop().create_task(pump)
    rig.publish_nowait("jobs", None)
    await turns()
    assert [frame.f_code.co_name for frame in task.get_stack()] == ["my_handler"]
    text = io.StringIO()
    task.print_stack(file=text)
    assert "await waits_here()" in text.getvalue()
    assert pump.cr_await is not None
    assert pump.cr_running is False
    task.cancel()
    await asyncio.wait([task])


async def test_a_pump_looks_like_a_coroutine_from_outside(rig, turns, soon):
    mailbox = rig.mailbox("jobs")
    seen = []

    def handler(message):
        seen.append(pump.cr_running)

    pump = rig.pump(mailbox, handler, name="worker of jobs")
    assert pump.cr_running is False
    task = asyncio.get_running_loop().create_task(pump)
    await turns()
    assert "worker of jobs" in repr(task)
    rig.publish_nowait("jobs", None)
    mailbox.close()
    await soon(task)
    assert seen == [True]
    assert pump.cr_running is False
    assert pump.cr_frame is None
    assert "worker of jobs" in repr(task)


async def test_a_traceback_inside_a_handler_can_be_formatted(rig):
    texts = []

    async def my_handler(message):
        await asyncio.sleep(0)
        texts.append("".join(traceback.format_stack()))
        try:
            raise LookupError
        except LookupError:
            texts.append(traceback.format_exc())

    await run(rig, my_handler)
    assert all("my_handler" in text for text in texts)


async def test_exceptions_of_a_handler_know_what_they_were_raised_from(rig):
    async def handler(message):
        try:
            await asyncio.sleep(0)
            raise KeyError("cause")
        except KeyError as error:
            raise LookupError("effect") from error

    with pytest.raises(LookupError) as caught:
        await run(rig, handler)
    assert caught.value.args == ("effect",)
    assert isinstance(caught.value.__cause__, KeyError)


async def test_debug_mode(rig, turns, soon):
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    mailbox = rig.mailbox("jobs", capacity=2)
    handled = []

    async def handler(message):
        await asyncio.sleep(0)
        if message.payload == 1:
            raise LookupError
        handled.append(message.payload)

    task = rig.start(mailbox, handler, timeout=5)
    for number in range(6):
        await soon(rig.publish("jobs", number))
    mailbox.close()
    await soon(task)
    assert handled == [0, 2, 3, 4, 5]
    assert len(rig.failures) == 1


async def test_a_task_factory_gets_the_pump(rig, soon):
    made = []

    def factory(loop, coroutine, **options):
        made.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)

    mailbox = rig.mailbox("jobs")
    pump = rig.pump(mailbox, lambda message: None)
    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    mailbox.close()
    await loop.create_task(pump)
    loop.set_task_factory(None)
    assert pump in made


@pytest.mark.skipif(sys.version_info < (3, 12), reason="new in Python 3.12")
async def test_an_eager_task(rig, turns, soon):
    loop = asyncio.get_running_loop()
    if type(loop).__module__.startswith("uvloop"):
        pytest.skip("uvloop has no eager tasks")
    loop.set_task_factory(asyncio.eager_task_factory)
    mailbox = rig.mailbox("jobs")
    handled = []

    async def handler(message):
        await asyncio.sleep(0)
        handled.append(message.payload)

    rig.publish_nowait("jobs", 1)
    task = rig.start(mailbox, handler)
    rig.publish_nowait("jobs", 2)
    mailbox.close()
    await soon(task)
    loop.set_task_factory(None)
    assert handled == [1, 2]
