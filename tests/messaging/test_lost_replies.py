"""Replies are neither retried nor durable: one that cannot be sent fails no handler."""

from __future__ import annotations

import asyncio
import logging

import pytest

from neuralcore.messaging import settle
from neuralcore.messaging.errors import EncodeError, RequestFailed
from neuralcore.messaging.retry import RetryPolicy
from neuralcore.testing import Recorder, idle, virtual, virtual_bus

BOTH = pytest.mark.parametrize("url", ["native://", "memory://"])
EXACT = RetryPolicy(max_attempts=3, base=1.0, factor=1.0, jitter=False)


@pytest.mark.parametrize("reply_to", ["full", "bad name", "_inbox.", "full.*"])
@virtual
async def test_a_reply_that_cannot_be_sent_is_logged_and_counted_and_the_message_is_handled(reply_to, caplog):
    async with virtual_bus(retry=EXACT) as bus:
        gate = asyncio.Event()
        got = Recorder(lambda message: "answer")
        bus.subscribe("ask", got.handle)
        bus.subscribe("full", Recorder(lambda message: gate.wait()).handle, capacity=1, overflow="reject")
        await bus.publish("full", "in the way")
        with caplog.at_level(logging.WARNING, "neuralcore"):
            await bus.publish("ask", 1, reply_to=reply_to)
            await asyncio.sleep(60)
        assert got.attempts == [1]
        metrics = bus.metrics()
        (asked,) = [s for s in metrics.subscriptions if s.pattern == "ask"]
        assert (asked.acked, asked.retried, asked.dead_lettered) == (1, 0, 0)
        assert metrics.transport["replies_lost"] == 1
        assert "could not be sent" in caplog.text
        gate.set()


@virtual
async def test_a_result_that_cannot_be_encoded_reaches_the_requester_as_an_error():
    async with virtual_bus("memory://", retry=EXACT) as bus:
        got = Recorder(lambda message: object())
        await bus.subscribe("ask", got.handle, group="g").ready()
        with pytest.raises(RequestFailed) as caught:
            await bus.request("ask", 1, timeout=60.0)
        assert caught.value.type == "EncodeError"
        await asyncio.sleep(60)
        assert got.attempts == [1]
        assert bus.metrics().transport["replies_lost"] == 1


@virtual
async def test_a_handler_that_replies_itself_sees_the_error():
    raised = []

    async def act(message):
        try:
            await message.reply(object())
        except EncodeError as error:
            raised.append(error)
        return "instead"

    async with virtual_bus("memory://") as bus:
        await bus.subscribe("ask", Recorder(act).handle, group="g").ready()
        assert await bus.request("ask", 1, timeout=60.0) == "instead"
        assert len(raised) == 1


@BOTH
@virtual
async def test_a_handler_that_puts_a_request_off_does_not_answer_it(url):
    async def act(message):
        if message.attempt == 1:
            await message.nack(1.0)
            return None
        return "at last"

    async with virtual_bus(url) as bus:
        await bus.subscribe("ask", Recorder(act).handle, group="g").ready()
        assert await bus.request("ask", 1, timeout=60.0) == "at last"
        await idle()
        assert bus.metrics().late_replies == 0


@BOTH
@pytest.mark.parametrize(
    ("timeout", "error"),
    [
        (None, TypeError),
        ("x", TypeError),
        ([1], TypeError),
        (True, TypeError),
        (0, ValueError),
        (-1, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
    ],
)
@virtual
async def test_what_is_no_time_out_is_refused_and_remembered_nowhere(url, timeout, error):
    async with virtual_bus(url) as bus:
        await bus.subscribe("ask", Recorder(lambda message: 1).handle, group="g").ready()
        with pytest.raises(error, match="timeout"):
            await bus.request("ask", 1, timeout=timeout)
        assert len(bus._replies) == 0
        assert not bus._replies._publishing


@BOTH
@virtual
async def test_answers_of_handlers_streams_and_batches_are_not_remembered_for_ever(url, monkeypatch):
    monkeypatch.setattr(settle, "_MOST_ANSWERED", 10)

    async def both(message):
        await message.reply("first")
        return "second"

    async def batch(messages: list):
        for message in messages:
            await message.reply("of a batch")

    async def pull(stream):
        async for message in stream:
            await message.reply("pulled")
            await message.ack()

    async with virtual_bus(url) as bus:
        single = bus.subscribe("single", both, group="g")
        many = bus.subscribe("many", batch, group="g", batch=5)
        await single.ready()
        await many.ready()
        async with bus.stream("pull", group="g") as stream:
            await asyncio.sleep(1)
            pulling = asyncio.create_task(pull(stream))
            for _ in range(30):
                assert await bus.request("single", 1) == "first"
                assert await bus.request("many", 1) == "of a batch"
                assert await bus.request("pull", 1) == "pulled"
            await idle()
            assert len(stream._intake.settlement._answered) == 0
            assert len(single.settlement._answered) == 0
            assert len(many.settlement._answered) <= 10
            pulling.cancel()
