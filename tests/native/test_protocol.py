"""The objects are coroutines to everybody who looks."""

import asyncio
import collections.abc
import inspect
import traceback

import pytest


async def test_awaitables_are_coroutines(rig):
    mailbox = rig.mailbox(capacity=1)
    done = rig.router.publish("jobs", 1)
    waiting = rig.router.publish("jobs", 2)
    many = rig.router.publish_many([])
    ready = mailbox.ready()
    pump = rig.pump(mailbox, print)
    for awaitable in (done, waiting, many, ready, pump):
        assert isinstance(awaitable, collections.abc.Coroutine)
        assert inspect.isawaitable(awaitable)
        awaitable.close()
    with pytest.raises(RuntimeError):
        waiting.send(None)


async def test_a_finished_publish_runs_as_a_task(rig):
    mailbox = rig.mailbox()
    identity = await asyncio.create_task(rig.router.publish("jobs", 1))
    assert mailbox.take().id == identity
    assert await asyncio.wait_for(rig.router.publish("jobs", 2), 1) == mailbox.take().id


async def test_a_waiting_publish_runs_as_a_task(rig):
    mailbox = rig.mailbox(capacity=1)
    await rig.router.publish("jobs", 1)
    task = asyncio.create_task(rig.router.publish("jobs", 2))
    await asyncio.sleep(0)
    mailbox.ack(mailbox.take())
    assert await task == mailbox.take().id


async def test_results_of_many_are_a_sequence(rig):
    rig.mailbox(overflow="drop_new", capacity=3)
    items = [("jobs", 1), ("jobs", 2, 3), ("jobs", 3, None, {"message_id": "m"}), ("jobs", 4)]
    ids = await rig.router.publish_many(items)
    assert isinstance(ids, collections.abc.Sequence)
    assert len(ids) == 4
    assert ids[2] == "m"
    assert ids[-1] is None
    assert ids[1:3] == [ids[1], "m"]
    assert next(reversed(ids)) is None
    assert ids == list(ids)
    assert ids.index("m") == 2
    assert ids.count(None) == 1
    assert ids[0] in ids
    with pytest.raises(IndexError):
        ids[4]
    assert int(ids[1], 16) == int(ids[0], 16) + 1


async def test_the_traceback_leads_to_the_handler(rig):
    mailbox = rig.mailbox()

    async def fail(message):
        raise ValueError("no")

    task = rig.start(mailbox, fail)
    await rig.router.publish("jobs", 1)
    mailbox.close()
    await task
    frames = traceback.extract_tb(rig.failures[0].__traceback__)
    assert frames[-1].name == "fail"


async def test_the_stack_of_a_task_shows_where_its_handler_waits(rig):
    mailbox = rig.mailbox()
    future = asyncio.get_running_loop().create_future()

    async def wait(message):
        await future

    task = rig.start(mailbox, wait, name="jobs-1")
    await rig.router.publish("jobs", 1)
    await asyncio.sleep(0)
    assert [frame.f_code.co_name for frame in task.get_stack()] == ["wait"]
    assert "jobs-1" in repr(task.get_coro())
    assert task.get_coro().cr_await.__name__ == "wait"
    assert "jobs-1" in repr(task)
    future.set_result(None)
    mailbox.close()
    await task
    assert task.get_stack() == []


@pytest.mark.parametrize("wrong", [{"channel": "twice"}, {"colour": 1}, {"priority": "x"}, {"key": 1}, {"headers": 3}])
async def test_wrong_arguments_are_type_errors(rig, wrong):
    rig.mailbox()
    with pytest.raises((TypeError, AttributeError)):
        rig.router.publish("jobs", 1, **wrong)


@pytest.mark.parametrize("arguments", [(), ("jobs",), ("jobs", 1, 2), (1, 2), ([], 2)])
async def test_wrong_places_are_type_errors(rig, arguments):
    rig.mailbox()
    with pytest.raises(TypeError):
        rig.router.publish(*arguments)


async def test_channel_and_payload_may_be_named(rig):
    mailbox = rig.mailbox()
    await rig.router.publish(payload=1, channel="jobs")
    rig.router.publish_nowait("jobs", payload=2)
    assert [mailbox.take().payload, mailbox.take().payload] == [1, 2]


async def test_a_handler_that_gets_a_foreign_awaitable_is_driven(rig):
    mailbox = rig.mailbox()
    loop = asyncio.get_running_loop()
    futures = [loop.create_future(), loop.create_future()]
    handled = []

    class Custom:
        def __await__(self):
            handled.append("custom")
            yield from futures[1].__await__()

    def handler(message):
        return [futures[0], Custom()][message.payload]

    task = rig.start(mailbox, handler)
    await rig.router.publish("jobs", 0)
    await rig.router.publish("jobs", 1)
    await asyncio.sleep(0)
    assert mailbox.stats().in_flight == 1
    for future in futures:
        loop.call_soon(future.set_result, None)
    mailbox.close()
    await task
    assert handled == ["custom"]
    assert mailbox.stats().acked == 2


async def test_a_pump_awaits_inside_a_coroutine(rig):
    mailbox = rig.mailbox()
    handled = []

    async def outer():
        await rig.pump(mailbox, lambda message: handled.append(message.payload))

    await rig.router.publish("jobs", 1)
    mailbox.close()
    await outer()
    assert handled == [1]


async def test_debug_mode(rig):
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    mailbox = rig.mailbox()

    async def handler(message):
        await asyncio.sleep(0)

    task = rig.start(mailbox, handler)
    await rig.router.publish("jobs", 1)
    await asyncio.sleep(0)
    assert "Pump" in repr(task) or "pump" in repr(task)
    mailbox.close()
    await task
