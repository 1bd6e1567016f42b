"""Pump: takes from the mailbox, calls the handler, drives what it returns, settles, goes on."""

from __future__ import annotations

import asyncio
import inspect
import types

import pytest


async def run(rig, mailbox, handler, **options):
    """Until everything that is queued now has been handled."""
    mailbox.close()
    await asyncio.wait_for(rig.start(mailbox, handler, **options), 5)


async def test_it_calls_the_handler_with_each_message_in_order(rig):
    mailbox = rig.mailbox("jobs")
    for number, priority in enumerate((50, 0, 50)):
        rig.publish_nowait("jobs", number, priority=priority)
    handled = []
    await run(rig, mailbox, handled.append)
    assert [message.payload for message in handled] == [1, 0, 2]
    assert all(isinstance(message, rig.core.Message) for message in handled)


async def test_it_acks_after_success_and_marks_the_message_settled(rig):
    mailbox = rig.mailbox("jobs")
    rig.publish_nowait("jobs", None)
    seen = []

    async def handler(message):
        seen.append((message, message.settled, mailbox.stats().in_flight))

    await run(rig, mailbox, handler)
    [(message, settled, in_flight)] = seen
    assert (settled, in_flight) == (False, 1)
    assert message.settled is True
    assert mailbox.stats()[1:12] == (0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0)


def a_future(value):
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, value)
    return future


class Awaitable:
    def __init__(self, value):
        self.value = value

    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return self.value


@types.coroutine
def generator_coroutine(value):
    yield
    return value


async def coroutine(value):
    await asyncio.sleep(0)
    return value


@pytest.mark.parametrize(
    "make",
    [a_future, Awaitable, generator_coroutine, coroutine, lambda value: asyncio.ensure_future(coroutine(value))],
    ids=["future", "awaitable", "generator", "coroutine", "task"],
)
async def test_any_awaitable_that_the_handler_returns_is_driven(rig, make):
    mailbox = rig.mailbox("jobs")
    for _ in range(2):
        rig.publish_nowait("jobs", None, reply_to="_inbox.1")
    await run(rig, mailbox, lambda message: make("done"))
    assert rig.replies == [(None, "done"), (None, "done")]
    assert mailbox.stats().acked == 2


@pytest.mark.parametrize("value", [None, 0, "text", [1], (number for number in ())], ids=repr)
async def test_what_is_not_awaitable_is_the_result(rig, value):
    mailbox = rig.mailbox("jobs")
    rig.publish_nowait("jobs", None, reply_to="_inbox.1")
    await run(rig, mailbox, lambda message: value)
    assert rig.replies == [(None, value)]


async def test_a_handler_may_be_a_callable_object_or_a_method(rig):
    class Handler:
        def __init__(self):
            self.seen = []

        async def __call__(self, message):
            self.seen.append(message.payload)

        async def method(self, message):
            await asyncio.sleep(0)
            self.seen.append(message.payload)

    handler = Handler()
    for call in (handler, handler.method):
        mailbox = rig.mailbox("jobs")
        rig.publish_nowait("jobs", 1)
        await run(rig, mailbox, call)
    assert handler.seen == [1, 1]


async def test_replied_is_called_before_the_ack_and_only_for_requests(rig):
    mailbox = rig.mailbox("jobs")
    rig.publish_nowait("jobs", "request", reply_to="_inbox.1")
    rig.publish_nowait("jobs", "no request")
    order = []

    def replied(message, result):
        order.append((message.payload, result, message.settled, mailbox.stats().acked))

    await run(rig, mailbox, lambda message: "answer", replied=replied)
    assert order == [("request", "answer", False, 0)]
    assert mailbox.stats().acked == 2


async def test_what_replied_answers_is_driven(rig):
    mailbox = rig.mailbox("jobs")
    for number in range(2):
        rig.publish_nowait("jobs", number, reply_to="_inbox.1")
    order = []

    async def replied(message, result):
        order.append(("begins", message.payload))
        await asyncio.sleep(0)
        order.append(("ends", mailbox.stats().acked))

    await run(rig, mailbox, lambda message: None, replied=replied)
    assert order == [("begins", 0), ("ends", 0), ("begins", 1), ("ends", 1)]


async def test_settled_is_told_of_each_success_before_the_ack(rig):
    mailbox = rig.mailbox("jobs")
    for number in range(2):
        rig.publish_nowait("jobs", number, reply_to="_inbox.1")
    order = []
    await run(
        rig,
        mailbox,
        lambda message: f"result {message.payload}",
        replied=lambda message, result: order.append(("replied", message.payload)),
        settled=lambda message, result: order.append(("settled", message.payload, result, mailbox.stats().acked)),
    )
    assert order == [
        ("replied", 0),
        ("settled", 0, "result 0", 0),
        ("replied", 1),
        ("settled", 1, "result 1", 1),
    ]
    assert mailbox.stats().acked == 2


async def test_messages_settled_inside_the_handler_are_left_out(rig):
    mailbox = rig.mailbox("jobs")
    for number in range(3):
        rig.publish_nowait("jobs", number)
    told = []

    async def handler(message):
        if message.payload == 0 and message.attempt == 1:
            await message.nack()
        elif message.payload == 1:
            await message.ack()

    await run(rig, mailbox, handler, settled=lambda message, result: told.append((message.payload, message.attempt)))
    assert told == [(2, 1), (0, 2)]
    stats = mailbox.stats()
    assert (stats.acked, stats.retried, stats.in_flight) == (3, 1, 0)


async def test_it_waits_for_messages_and_ends_when_the_mailbox_is_closed_and_empty(rig, turns, soon):
    mailbox = rig.mailbox("jobs")
    handled = []
    task = rig.start(mailbox, lambda message: handled.append(message.payload))
    for number in range(3):
        await turns()
        assert not task.done()
        rig.publish_nowait("jobs", number)
    mailbox.close()
    assert await soon(task) is None
    assert handled == [0, 1, 2]


async def test_it_does_not_end_while_a_delayed_message_is_in_a_closed_mailbox(rig, turns, soon):
    mailbox = rig.mailbox("jobs")
    rig.publish_nowait("jobs", "later", delay=1)
    handled = []
    task = rig.start(mailbox, lambda message: handled.append(message.payload))
    mailbox.close()
    await turns()
    assert not task.done()
    rig.clock.advance(1_000_000_000)
    mailbox.promote()
    await soon(task)
    assert handled == ["later"]


async def test_all_pumps_of_a_mailbox_end(rig, turns, soon):
    mailbox = rig.mailbox("jobs")
    tasks = [rig.start(mailbox, lambda message: asyncio.sleep(0)) for _ in range(4)]
    for number in range(10):
        rig.publish_nowait("jobs", number)
    await turns(2)
    mailbox.close()
    assert await soon(asyncio.gather(*tasks)) == [None] * 4
    assert mailbox.stats().acked == 10


async def test_stop_ends_it_after_the_current_message(rig, turns, soon):
    mailbox = rig.mailbox("jobs")
    gate = asyncio.Event()
    handled = []

    async def handler(message):
        await gate.wait()
        handled.append(message.payload)

    pump = rig.pump(mailbox, handler)
    task = asyncio.get_running_loop().create_task(pump)
    rig.publish_nowait("jobs", 0)
    rig.publish_nowait("jobs", 1)
    await turns()
    pump.stop()
    await turns()
    assert not task.done()
    gate.set()
    assert await soon(task) is None
    assert handled == [0]
    assert mailbox.stats()[1:5] == (1, 0, 0, 0)


async def test_stop_inside_the_handler_ends_it_after_that_message(rig, soon):
    mailbox = rig.mailbox("jobs")
    for number in range(3):
        rig.publish_nowait("jobs", number)
    pump = rig.pump(mailbox, lambda message: pump.stop())
    await soon(asyncio.get_running_loop().create_task(pump))
    assert (mailbox.stats().acked, mailbox.stats().queued) == (1, 2)


@pytest.mark.parametrize("cancel", [False, True])
async def test_stop_ends_a_pump_that_waits_for_messages(rig, turns, soon, cancel):
    mailbox = rig.mailbox("jobs")
    pump = rig.pump(mailbox, lambda message: None)
    task = asyncio.get_running_loop().create_task(pump)
    await turns()
    pump.stop(cancel=cancel)
    assert await soon(task) is None


async def test_stop_before_it_runs_means_that_it_handles_nothing(rig, soon):
    mailbox = rig.mailbox("jobs")
    rig.publish_nowait("jobs", None)
    pump = rig.pump(mailbox, lambda message: None)
    pump.stop()
    await soon(asyncio.get_running_loop().create_task(pump))
    assert mailbox.stats().queued == 1


async def test_work_that_a_stopped_pump_leaves_is_done_by_another(rig, turns, soon):
    mailbox = rig.mailbox("jobs")
    gate = asyncio.Event()
    first = rig.pump(mailbox, lambda message: gate.wait())
    task = asyncio.get_running_loop().create_task(first)
    rig.publish_nowait("jobs", 0)
    await turns()
    other = rig.start(mailbox, lambda message: None)
    await turns()
    first.stop()
    gate.set()
    await soon(task)
    for number in range(3):
        rig.publish_nowait("jobs", number)
    mailbox.close()
    await soon(other)
    assert mailbox.stats().acked == 4


async def test_current_is_what_the_handler_has(rig, turns, soon):
    mailbox = rig.mailbox("jobs")
    seen = []

    async def handler(message):
        seen.append(pump.current is message)
        await asyncio.sleep(0)
        seen.append(pump.current is message)

    pump = rig.pump(mailbox, handler)
    assert pump.current is None
    task = asyncio.get_running_loop().create_task(pump)
    await turns()
    assert pump.current is None
    rig.publish_nowait("jobs", None)
    mailbox.close()
    await soon(task)
    assert seen == [True, True]
    assert pump.current is None


async def test_it_can_be_awaited_inside_another_coroutine(rig, turns, soon):
    mailbox = rig.mailbox("jobs")
    handled = []

    async def handler(message):
        await asyncio.sleep(0)
        handled.append(message.payload)

    async def worker():
        await rig.pump(mailbox, handler)
        return "ended"

    task = asyncio.create_task(worker())
    for number in range(3):
        rig.publish_nowait("jobs", number)
        await turns(2)
    mailbox.close()
    assert await soon(task) == "ended"
    assert handled == [0, 1, 2]


async def test_it_has_the_name_that_it_was_given_or_gets(rig):
    mailbox = rig.mailbox()
    assert rig.pump(mailbox, print).__name__ == "pump"
    pump = rig.pump(mailbox, print, name="worker of jobs")
    assert (pump.__name__, pump.__qualname__) == ("worker of jobs", "worker of jobs")
    pump.__name__ = pump.__qualname__ = "renamed"
    assert (pump.__name__, pump.__qualname__) == ("renamed", "renamed")
    pump.close()


async def test_it_counts_as_a_coroutine(rig):
    pump = rig.pump(rig.mailbox(), print)
    assert asyncio.iscoroutine(pump)
    assert inspect.isawaitable(pump)
    pump.close()


def test_a_pump_that_never_runs_leaves_no_warning(rig):
    rig.pump(rig.mailbox(), print)


async def test_a_closed_pump_cannot_run(rig, soon):
    pump = rig.pump(rig.mailbox(), print)
    pump.close()
    pump.close()
    with pytest.raises(RuntimeError):
        await soon(asyncio.get_running_loop().create_task(pump))


async def test_an_ended_pump_cannot_run_again(rig, soon):
    mailbox = rig.mailbox()
    mailbox.close()
    pump = rig.pump(mailbox, print)
    await soon(asyncio.get_running_loop().create_task(pump))
    with pytest.raises(RuntimeError):
        pump.send(None)


@pytest.mark.parametrize("budget", [0, -1])
def test_a_budget_is_one_or_more(rig, make_rig, budget):
    with pytest.raises(ValueError, match="budget"):
        rig.pump(rig.mailbox(), print, budget=budget)
    with pytest.raises(ValueError, match="budget"):
        make_rig(budget=budget)
