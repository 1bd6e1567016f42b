"""What a handler raises after it has settled its message, and exceptions that are a generator's business elsewhere."""

from __future__ import annotations

import asyncio

import pytest

from neuralcore.messaging.errors import RequestFailed
from neuralcore.messaging.retry import RetryPolicy
from neuralcore.testing import Recorder, idle, virtual, virtual_bus

BOTH = pytest.mark.parametrize("url", ["native://", "memory://"])
EXACT = RetryPolicy(max_attempts=3, base=1.0, factor=1.0, jitter=False)


@BOTH
@virtual
async def test_an_error_after_an_early_ack_reaches_the_requester(url):
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))

    async def act(message):
        await message.ack()
        raise ValueError("after the ack")

    async with virtual_bus(url) as bus:
        got = Recorder(act)
        await bus.subscribe("ask", got.handle, group="g").ready()
        with pytest.raises(RequestFailed, match="after the ack") as caught:
            await bus.request("ask", 1, timeout=60.0)
        assert caught.value.type == "ValueError"
        await asyncio.sleep(60)
        assert got.attempts == [1]
        assert [error.args for error in reported] == [("after the ack",)]
        assert bus.metrics().late_replies == 0


@BOTH
@pytest.mark.parametrize("verb", ["nack", "reject", "reply"])
@virtual
async def test_what_was_answered_or_put_off_is_not_answered_again(url, verb):
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)

    async def act(message):
        if message.attempt == 1:
            await (message.reply("replied") if verb == "reply" else getattr(message, verb)())
            if verb == "reply":
                await message.ack()
            raise ValueError("after that")
        return "second"

    async with virtual_bus(url, retry=EXACT) as bus:
        await bus.subscribe("ask", Recorder(act).handle, group="g").ready()
        try:
            answer = await bus.request("ask", 1, timeout=60.0)
        except RequestFailed as failed:
            answer = failed.type
        assert answer == {"nack": "second", "reject": "Reject", "reply": "replied"}[verb]
        await asyncio.sleep(60)
        assert bus.metrics().late_replies == 0


@BOTH
@pytest.mark.parametrize("blocking", [None, False, True])
@virtual
async def test_a_handler_that_raises_generator_exit_has_failed_an_attempt(url, blocking):
    attempts = []

    async def coroutine(message):
        attempts.append(message.attempt)
        raise GeneratorExit

    def plain(message):
        attempts.append(message.attempt)
        raise GeneratorExit

    async with virtual_bus(url, retry=EXACT) as bus:
        handler = coroutine if blocking is None else plain
        await bus.subscribe("jobs", handler, group="g", blocking=blocking).ready()
        await bus.publish("jobs", 1)
        while not bus.metrics().dead_lettered:
            await asyncio.sleep(1)
        await idle()
        assert attempts == [1, 2, 3]
        assert (bus.metrics().in_flight, bus.metrics().released) == (0, 0)
