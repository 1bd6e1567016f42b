"""A settlement happens when it is called; awaiting it waits for its end."""

import asyncio

import pytest

from neuralcore.messaging import RetryPolicy
from neuralcore.messaging.eager import begun
from neuralcore.testing import Recorder, idle, virtual, virtual_bus

URLS = ("native://", "memory://")


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("verb", ["reject", "nack"])
@virtual
async def test_a_dead_letter_whose_await_was_forgotten_is_there_all_the_same(url, verb):
    async with virtual_bus(url, retry=RetryPolicy(max_attempts=1)) as bus:
        dead = Recorder()

        async def handler(message):
            getattr(message, verb)()

        await bus.subscribe("_dlq.jobs", dead.handle, group="g").ready()
        await bus.subscribe("jobs", handler, group="g").ready()
        await bus.publish("jobs", 1)
        await idle()
        assert dead.payloads == [1]
        report = await bus.close()
    assert report.drained


def waits(future, seen):
    async def work():
        try:
            seen.append(await future)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        except LookupError:
            seen.append(await asyncio.sleep(0, "went on"))

    return work()


async def test_what_does_not_wait_is_over_when_it_has_begun():
    seen = []

    async def work():
        seen.append(1)

    assert begun(work()) is None
    assert begun(None) is None
    assert seen == [1]


@pytest.mark.parametrize("late", [True, False])
async def test_what_waits_goes_on_when_it_is_awaited(late):
    future, seen = asyncio.get_running_loop().create_future(), []
    rest = begun(waits(future, seen))
    if not late:
        future.set_result("result")
    asyncio.get_running_loop().call_soon(lambda: future.done() or future.set_result("result"))
    await rest
    assert seen == ["result"]


async def test_errors_and_cancellation_reach_what_waits():
    loop, seen = asyncio.get_running_loop(), []
    failing = loop.create_future()
    rest = begun(waits(failing, seen))
    failing.set_exception(LookupError())
    await rest
    assert seen == ["went on"]

    async def wait(rest):
        await rest

    task = asyncio.create_task(wait(begun(waits(loop.create_future(), seen))))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["went on", "cancelled"]


async def test_an_error_before_the_first_wait_is_raised_at_once():
    async def work():
        raise LookupError

    with pytest.raises(LookupError):
        begun(work())
