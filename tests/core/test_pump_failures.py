"""Pump: what follows an exception out of a handler."""

from __future__ import annotations

import asyncio
import traceback

import pytest


async def run(rig, mailbox, handler, **options):
    mailbox.close()
    await asyncio.wait_for(rig.start(mailbox, handler, **options), 5)


async def suspending(message):
    await asyncio.sleep(0)
    raise LookupError(message.payload)


async def immediate(message):
    raise LookupError(message.payload)


def synchronous(message):
    raise LookupError(message.payload)


every_kind = pytest.mark.parametrize("handler", [suspending, immediate, synchronous])


@every_kind
async def test_failed_gets_the_message_and_the_exception_and_the_pump_goes_on(rig, handler):
    mailbox = rig.mailbox("jobs")
    for number in range(3):
        rig.publish_nowait("jobs", number)
    await run(rig, mailbox, handler)
    assert [(message.payload, type(error), error.args) for message, error in rig.failures] == [
        (number, LookupError, (number,)) for number in range(3)
    ]
    assert mailbox.stats().acked == 3


@every_kind
async def test_the_traceback_reaches_down_to_the_line_that_raised(rig, handler):
    mailbox = rig.mailbox("jobs")
    rig.publish_nowait("jobs", 1)
    await run(rig, mailbox, handler)
    [(_, error)] = rig.failures
    frames = traceback.extract_tb(error.__traceback__)
    assert frames[-1].name == handler.__name__
    assert frames[-1].line == "raise LookupError(message.payload)"


async def test_failed_decides_and_settles(rig):
    mailbox = rig.mailbox("jobs")
    for name in ("retry", "release", "ack"):
        rig.publish_nowait("jobs", name)
    seen = []

    def handler(message):
        seen.append((message.payload, message.attempt))
        if message.attempt == 1 and seen.count((message.payload, 1)) == 1:
            raise LookupError

    def failed(message, error):
        assert message.settled is False
        if message.payload == "retry":
            mailbox.retry(message, 0)
        elif message.payload == "release":
            mailbox.release(message)
        else:
            mailbox.ack(message)

    await run(rig, mailbox, handler, failed=failed)
    assert seen == [("retry", 1), ("release", 1), ("release", 1), ("ack", 1), ("retry", 2)]
    stats = mailbox.stats()
    assert (stats.acked, stats.retried, stats.released, stats.in_flight) == (3, 1, 1, 0)
    assert stats.delivered == 5


async def test_what_failed_answers_is_driven_before_the_next_message(rig):
    mailbox = rig.mailbox("jobs")
    for number in range(2):
        rig.publish_nowait("jobs", number)
    order = []

    def handler(message):
        order.append(("handler", message.payload))
        raise LookupError

    async def failed(message, error):
        await asyncio.sleep(0)
        order.append(("decided", message.payload))
        mailbox.ack(message)

    await run(rig, mailbox, handler, failed=failed)
    assert order == [("handler", 0), ("decided", 0), ("handler", 1), ("decided", 1)]


async def test_a_failed_message_is_neither_replied_nor_settled_by_the_pump(rig):
    mailbox = rig.mailbox("jobs")
    rig.publish_nowait("jobs", 1, reply_to="_inbox.1")
    told = []
    await run(rig, mailbox, immediate, settled=lambda message, result: told.append(message))
    assert rig.replies == []
    assert told == []
    assert len(rig.failures) == 1


@pytest.mark.parametrize("callback", ["replied", "settled"])
async def test_an_exception_of_a_callback_after_the_handler_fails_the_message(rig, callback):
    mailbox = rig.mailbox("jobs")
    rig.publish_nowait("jobs", 1, reply_to="_inbox.1")

    def broken(message, result):
        raise LookupError(callback)

    await run(rig, mailbox, lambda message: None, **{callback: broken})
    [(message, error)] = rig.failures
    assert (message.payload, error.args) == (1, (callback,))


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration])
async def test_exceptions_that_mean_something_to_generators_are_failures_of_a_synchronous_handler_too(rig, kind):
    mailbox = rig.mailbox("jobs")
    rig.publish_nowait("jobs", 1)

    def handler(message):
        raise kind

    await run(rig, mailbox, handler)
    [(_, error)] = rig.failures
    assert isinstance(error, (kind, RuntimeError))


async def test_an_error_after_the_handler_settled_its_message_is_reported_to_the_loop(rig):
    mailbox = rig.mailbox("jobs")
    rig.publish_nowait("jobs", 1)
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))

    async def handler(message):
        await message.ack()
        raise LookupError("after all")

    await run(rig, mailbox, handler)
    assert rig.failures == []
    assert [error.args for error in reported] == [("after all",)]
    assert mailbox.stats().acked == 1


async def test_an_error_after_the_handler_settled_a_request_is_told_to_failed_too(rig):
    mailbox = rig.mailbox("jobs")
    rig.publish_nowait("jobs", 1, reply_to="_inbox.1")
    rig.publish_nowait("jobs", 2)
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    told = []

    async def handler(message):
        await message.ack()
        raise LookupError("after all")

    await run(rig, mailbox, handler, failed=lambda message, error: told.append((message.payload, error.args)))
    assert told == [(1, ("after all",))]
    assert mailbox.stats().acked == 2


@pytest.mark.parametrize("how", ["at once", "after a suspension"])
async def test_a_handlers_own_generator_exit_is_a_failure(rig, how):
    mailbox = rig.mailbox("jobs")
    for number in range(2):
        rig.publish_nowait("jobs", number)

    async def handler(message):
        if how != "at once":
            await asyncio.sleep(0)
        raise GeneratorExit

    await run(rig, mailbox, handler)
    assert [type(error) for _, error in rig.failures] == [GeneratorExit] * 2
    assert mailbox.stats().released == 0


async def test_an_exception_of_failed_ends_the_pump_and_loses_no_message(rig, soon):
    mailbox = rig.mailbox("jobs")
    rig.publish_nowait("jobs", 1)

    def failed(message, error):
        raise RuntimeError("the bus is broken") from error

    task = rig.start(mailbox, immediate, failed=failed)
    with pytest.raises(RuntimeError, match="the bus is broken"):
        await soon(task)
    stats = mailbox.stats()
    assert (stats.in_flight, stats.queued) == (0, 1)
    assert mailbox.take().attempt == 1


@pytest.mark.parametrize("how", ["at once", "after a suspension"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_keyboard_interrupt_and_system_exit_release_the_message_and_propagate(rig, kind, how):
    mailbox = rig.mailbox("jobs")
    rig.publish_nowait("jobs", 1)

    async def handler(message):
        if how != "at once":
            await asyncio.sleep(0)
        raise kind

    async def main():
        task = rig.start(mailbox, handler)
        await asyncio.wait([task])

    with pytest.raises(kind):
        asyncio.run(main())
    assert rig.failures == []
    stats = mailbox.stats()
    assert (stats.in_flight, stats.released, stats.queued) == (0, 1, 1)
    assert mailbox.take().attempt == 1


async def test_closing_a_suspended_pump_gives_its_message_back(rig, turns):
    mailbox = rig.mailbox("jobs")
    rig.publish_nowait("jobs", 1)
    ended = []

    async def handler(message):
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(message.payload)

    pump = rig.pump(mailbox, handler)
    pump.send(None)
    assert mailbox.stats().in_flight == 1
    pump.close()
    assert ended == [1]
    assert rig.failures == []
    assert (mailbox.stats().in_flight, mailbox.stats().queued) == (0, 1)


@pytest.mark.parametrize("kind", [ValueError, OSError])
async def test_throwing_any_other_exception_into_a_suspended_handler_is_a_failure_like_its_own(rig, kind, soon):
    mailbox = rig.mailbox("jobs")
    rig.publish_nowait("jobs", 1)

    async def handler(message):
        await asyncio.get_running_loop().create_future()

    pump = rig.pump(mailbox, handler)
    pump.send(None)
    mailbox.close()
    with pytest.raises(StopIteration):
        pump.throw(kind("thrown"))
    [(message, error)] = rig.failures
    assert (message.payload, type(error)) == (1, kind)


@pytest.mark.parametrize(
    "arguments",
    [(ValueError,), (ValueError, "text"), (ValueError, ValueError("text")), (ValueError("text"), None, None)],
    ids=["class", "class and value", "class and instance", "instance"],
)
def test_throw_takes_a_class_a_class_with_a_value_or_an_instance(rig, arguments):
    pump = rig.pump(rig.mailbox(), print)
    with pytest.raises(ValueError):  # noqa: PT011 - whatever text
        pump.throw(*arguments)
