"""Pump: timeouts, cancelled tasks, and stopping."""

from __future__ import annotations

import asyncio
import contextlib
import sys

import pytest

from neuralcore.testing import run, virtual


@pytest.fixture
def mailbox(rig):
    return rig.mailbox("jobs")


async def forever(message):
    await asyncio.Event().wait()


def outcomes(rig):
    return [(message.payload, type(error)) for message, error in rig.failures]


async def test_a_timeout_is_a_failure_and_the_pump_goes_on(rig, mailbox, soon):
    handled = []

    async def handler(message):
        if message.payload == "slow":
            await asyncio.Event().wait()
        handled.append(message.payload)

    for name in ("slow", "fast", "slow", "fast"):
        rig.publish_nowait("jobs", name)
    mailbox.close()
    task = rig.start(mailbox, handler, timeout=0.01)
    await soon(task)
    assert outcomes(rig) == [("slow", TimeoutError)] * 2
    assert handled == ["fast", "fast"]
    assert not task.cancelled()
    if sys.version_info >= (3, 11):
        assert task.cancelling() == 0


async def test_a_timeout_says_where_the_handler_was_and_how_long_it_had(rig, mailbox, soon):
    rig.publish_nowait("jobs", 1)
    mailbox.close()
    await soon(rig.start(mailbox, forever, timeout=0.01))
    [(_, error)] = rig.failures
    assert "0.01" in str(error)
    assert isinstance(error.__cause__, asyncio.CancelledError)
    assert error.__cause__.__traceback__ is not None


async def test_timed_out_is_true_while_its_cancellation_travels_through_the_handler(rig, mailbox, soon):
    seen = []

    async def handler(message):
        seen.append(pump.timed_out)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append(pump.timed_out)
            raise

    rig.publish_nowait("jobs", 1)
    rig.publish_nowait("jobs", 2)
    mailbox.close()
    pump = rig.pump(mailbox, handler, timeout=0.01)
    await soon(asyncio.get_running_loop().create_task(pump))
    assert seen == [False, True, False, True]
    assert pump.timed_out is False


async def test_a_handler_that_finishes_in_spite_of_its_timeout_has_succeeded(rig, mailbox, soon):
    async def handler(message):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "rescued"

    rig.publish_nowait("jobs", 1, reply_to="_inbox.1")
    rig.publish_nowait("jobs", 2)
    mailbox.close()
    task = rig.start(mailbox, handler, timeout=0.01)
    await soon(task)
    assert rig.failures == []
    assert rig.replies == [(1, "rescued")]
    assert mailbox.stats().acked == 2
    if sys.version_info >= (3, 11):
        assert task.cancelling() == 0


async def test_a_handler_that_turns_its_timeout_into_another_error_failed_with_that(rig, mailbox, soon):
    async def handler(message):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise LookupError from None

    rig.publish_nowait("jobs", 1)
    rig.publish_nowait("jobs", 2)
    mailbox.close()
    task = rig.start(mailbox, handler, timeout=0.01)
    await soon(task)
    assert outcomes(rig) == [(1, LookupError), (2, LookupError)]
    if sys.version_info >= (3, 11):
        assert task.cancelling() == 0


def test_a_timeout_does_not_reach_the_message_after_it(rig, mailbox):
    async def handler(message):
        await asyncio.sleep(message.payload)

    async def elapsed():
        before = asyncio.get_running_loop().time()
        await rig.start(mailbox, handler, timeout=15)
        return asyncio.get_running_loop().time() - before

    for seconds in (4, 20, 14, 14):
        rig.publish_nowait("jobs", seconds)
    mailbox.close()
    assert run(elapsed()) == pytest.approx(4 + 15 + 14 + 14)
    assert outcomes(rig) == [(20, TimeoutError)]


async def test_a_handler_that_never_suspends_is_not_timed_out(rig, mailbox, soon):
    rig.publish_nowait("jobs", 1)
    mailbox.close()
    await soon(rig.start(mailbox, lambda message: None, timeout=1e-9))
    assert rig.failures == []


async def test_cancelling_the_task_fails_the_message_and_ends_the_pump_cancelled(rig, mailbox, turns, soon):
    rig.publish_nowait("jobs", 1)
    rig.publish_nowait("jobs", 2)
    task = rig.start(mailbox, forever)
    await turns()
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError):
        await soon(task)
    assert task.cancelled()
    assert outcomes(rig) == [(1, asyncio.CancelledError)]
    assert mailbox.stats()[1:5] == (1, 0, 0, 0)


async def test_after_a_cancelled_pump_another_one_goes_on(rig, mailbox, turns, soon):
    handled = []

    async def handler(message):
        if message.payload == "stuck":
            await asyncio.Event().wait()
        handled.append(message.payload)

    for name in ("stuck", "a", "b"):
        rig.publish_nowait("jobs", name)
    task = rig.start(mailbox, handler)
    await turns()
    task.cancel()
    await turns()
    assert handled == []
    following = rig.start(mailbox, handler)
    rig.publish_nowait("jobs", "c")
    mailbox.close()
    await soon(following)
    assert handled == ["a", "b", "c"]


async def test_an_idle_worker_takes_what_a_cancelled_one_leaves(rig, mailbox, turns, soon):
    handled = []

    async def handler(message):
        if message.payload == "stuck":
            await asyncio.Event().wait()
        handled.append(message.payload)

    def failed(message, error):
        rig.publish_nowait("jobs", "left behind")
        mailbox.ack(message)

    pumps = [rig.pump(mailbox, handler, failed=failed) for _ in range(2)]
    tasks = {pump: asyncio.get_running_loop().create_task(pump) for pump in pumps}
    await turns()
    rig.publish_nowait("jobs", "stuck")
    await turns()
    [stuck] = [pump for pump in pumps if pump.current is not None]
    tasks[stuck].cancel()
    await turns()
    assert handled == ["left behind"]
    mailbox.close()
    await soon(asyncio.wait(tasks.values()))
    assert tasks[stuck].cancelled()


async def test_a_cancelled_handler_may_clean_up_before_the_message_has_failed(rig, mailbox, turns, soon):
    order = []

    async def handler(message):
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            order.append("cleaned up")

    def failed(message, error):
        order.append(type(error))
        mailbox.ack(message)

    rig.publish_nowait("jobs", 1)
    task = rig.start(mailbox, handler, failed=failed)
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(task)
    assert order == ["cleaned up", asyncio.CancelledError]


async def test_a_handler_may_swallow_a_cancellation_like_any_coroutine(rig, mailbox, turns, soon):
    async def handler(message):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    rig.publish_nowait("jobs", 1)
    task = rig.start(mailbox, handler)
    await turns()
    task.cancel()
    await turns()
    assert not task.done()
    assert mailbox.stats().acked == 1
    mailbox.close()
    await soon(task)


async def test_a_cancellation_from_inside_the_handler_is_only_a_failure(rig, mailbox, soon):
    async def handler(message):
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    for number in range(2):
        rig.publish_nowait("jobs", number)
    mailbox.close()
    task = rig.start(mailbox, handler)
    await soon(task)
    assert outcomes(rig) == [(0, asyncio.CancelledError), (1, asyncio.CancelledError)]


async def test_after_stop_with_cancel_the_cancelled_message_is_released(rig, mailbox, turns, soon):
    rig.publish_nowait("jobs", 1)
    pump = rig.pump(mailbox, forever)
    task = asyncio.get_running_loop().create_task(pump)
    await turns()
    pump.stop(cancel=True)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(task)
    assert rig.failures == []
    stats = mailbox.stats()
    assert (stats.released, stats.in_flight, stats.queued) == (1, 0, 1)
    assert mailbox.take().attempt == 1


async def test_after_stop_with_cancel_a_message_that_is_done_in_time_is_acked(rig, mailbox, turns, soon):
    gate = asyncio.Event()
    rig.publish_nowait("jobs", 1)
    pump = rig.pump(mailbox, lambda message: gate.wait())
    task = asyncio.get_running_loop().create_task(pump)
    await turns()
    pump.stop(cancel=True)
    gate.set()
    assert await soon(task) is None
    assert (mailbox.stats().acked, mailbox.stats().released) == (1, 0)


@virtual
async def test_a_timeout_after_stop_with_cancel_releases_too(rig, mailbox, turns):
    rig.publish_nowait("jobs", 1)
    pump = rig.pump(mailbox, forever, timeout=0.01)
    task = asyncio.get_running_loop().create_task(pump)
    await turns()
    pump.stop(cancel=True)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert mailbox.stats().released == 1


async def test_cancelling_a_pump_that_waits_for_messages_ends_it(rig, mailbox, turns, soon):
    task = rig.start(mailbox, print)
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(task)
    assert rig.failures == []
    rig.publish_nowait("jobs", 1)
    assert mailbox.stats().queued == 1


async def test_a_worker_cancelled_just_after_it_was_woken_passes_the_wake_up_on(rig, mailbox, turns, soon):
    handled = []
    tasks = [rig.start(mailbox, lambda message: handled.append(message.payload)) for _ in range(3)]
    await turns()
    rig.publish_nowait("jobs", 1)
    for task in tasks[1:]:
        task.cancel()
    await turns()
    assert handled == [1]
    tasks[0].cancel()
    rig.publish_nowait("jobs", 2)
    await turns()
    assert mailbox.stats().queued + len(handled) == 2


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 does not count cancellations")
async def test_a_task_cancelled_during_a_timeout_ends_cancelled(rig, mailbox, soon):
    async def handler(message):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            task.cancel()
            raise

    rig.publish_nowait("jobs", 1)
    task = rig.start(mailbox, handler, timeout=0.01)
    with pytest.raises(asyncio.CancelledError):
        await soon(task)
    assert outcomes(rig) == [(1, TimeoutError)]


async def test_what_failed_answers_is_driven_before_a_cancelled_pump_ends(rig, mailbox, turns, soon):
    order = []

    async def failed(message, error):
        await asyncio.sleep(0)
        mailbox.ack(message)
        order.append("decided")

    rig.publish_nowait("jobs", 1)
    task = rig.start(mailbox, forever, failed=failed)
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(task)
    assert order == ["decided"]
    assert mailbox.stats().in_flight == 0
