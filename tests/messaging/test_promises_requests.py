"""Requests: the first reply answers, errors and time-outs are clear, late replies are counted."""

from __future__ import annotations

import asyncio

import pytest

from neuralcore.messaging.errors import Closed, NoSubscribers, NotARequest, RequestFailed, RequestTimeout
from neuralcore.messaging.middleware import Middleware
from neuralcore.messaging.retry import Reject, RetryPolicy
from neuralcore.testing import Recorder, idle, virtual, virtual_bus

BOTH = pytest.mark.parametrize("url", ["native://", "memory://"])


@BOTH
@virtual(seeds=3)
async def test_a_request_is_answered_by_the_first_reply(url):
    async with virtual_bus(url) as bus:

        async def reply_after(message, seconds):
            await asyncio.sleep(seconds)
            return seconds

        for seconds in (3.0, 1.0, 2.0):
            got = Recorder(lambda message, seconds=seconds: reply_after(message, seconds))
            await bus.subscribe("ask", got.handle, broadcast=True).ready()
        assert await bus.request("ask", None, timeout=60.0) == 1.0
        await asyncio.sleep(60)
        assert bus.metrics().late_replies == 2


@BOTH
@virtual
async def test_an_error_reaches_the_caller_once_the_responder_will_not_retry(url):
    async with virtual_bus(url) as bus:

        def fail(message):
            raise KeyError(f"attempt {message.attempt}")

        got = Recorder(fail)
        policy = RetryPolicy(max_attempts=3, base=1.0, factor=1.0, jitter=False)
        await bus.subscribe("ask", got.handle, group="g", retry=policy).ready()
        before = asyncio.get_running_loop().time()
        with pytest.raises(RequestFailed) as caught:
            await bus.request("ask", 1, timeout=60.0)
        assert (caught.value.type, caught.value.text) == ("KeyError", "'attempt 3'")
        assert asyncio.get_running_loop().time() - before == pytest.approx(2.0, abs=0.5)


@BOTH
@virtual
async def test_reject_answers_at_once(url):
    def act(message):
        raise Reject("not today")

    async with virtual_bus(url) as bus:
        await bus.subscribe("ask", Recorder(act).handle, group="g").ready()
        with pytest.raises(RequestFailed, match="not today"):
            await bus.request("ask", 1, timeout=60.0)


@BOTH
@virtual
async def test_a_time_out_is_clear_and_the_late_reply_is_dropped_and_counted(url):
    async with virtual_bus(url) as bus:
        gate = asyncio.Event()
        await bus.subscribe("ask", Recorder(lambda message: gate.wait()).handle, group="g").ready()
        before = asyncio.get_running_loop().time()
        with pytest.raises(RequestTimeout) as caught:
            await bus.request("ask", 1, timeout=5.0)
        assert asyncio.get_running_loop().time() - before == pytest.approx(5.0, abs=0.01)
        assert (caught.value.channel, caught.value.timeout) == ("ask", 5.0)
        assert isinstance(caught.value, TimeoutError)
        gate.set()
        await asyncio.sleep(60)
        assert bus.metrics().late_replies == 1


@virtual
async def test_no_responder_on_native_is_no_subscribers_at_once():
    async with virtual_bus() as bus:
        before = asyncio.get_running_loop().time()
        with pytest.raises(NoSubscribers):
            await bus.request("ask", 1)
        assert asyncio.get_running_loop().time() == before


@virtual
async def test_a_request_times_out_while_it_waits_for_room():
    async with virtual_bus() as bus:
        gate = asyncio.Event()
        got = Recorder(lambda message: gate.wait())
        bus.subscribe("ask", got.handle, capacity=1)
        await bus.publish("ask", "in the way")
        with pytest.raises(RequestTimeout):
            await asyncio.wait_for(bus.request("ask", 1, timeout=1.0), 60.0)
        gate.set()
        await asyncio.sleep(60)
        assert got.payloads == ["in the way"], "it was cancelled before hand-over, so it has not happened"


@BOTH
@virtual
async def test_a_cancelled_request_forgets_its_reply(url):
    async with virtual_bus(url) as bus:
        gate = asyncio.Event()
        await bus.subscribe("ask", Recorder(lambda message: gate.wait()).handle, group="g").ready()
        asking = asyncio.create_task(bus.request("ask", 1, timeout=1000.0))
        await asyncio.sleep(1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        gate.set()
        await asyncio.sleep(60)
        assert bus.metrics().late_replies == 1


@BOTH
@virtual
async def test_a_return_value_is_the_reply_only_when_one_is_asked_for(url):
    async with virtual_bus(url) as bus:
        got = Recorder(lambda message: "returned")
        await bus.subscribe("ask", got.handle, group="g").ready()
        await bus.publish("ask", 1)
        await asyncio.sleep(60)
        assert await bus.request("ask", 1, timeout=60.0) == "returned"
        assert bus.metrics().late_replies == 0


@BOTH
@virtual
async def test_message_reply_answers_and_a_second_reply_is_late(url):
    raised = []

    async def act(message):
        if message.reply_to is None:
            try:
                await message.reply(1)
            except NotARequest as error:
                raised.append(error)
            return
        await message.reply("first")
        await message.reply("second")

    async with virtual_bus(url) as bus:
        await bus.subscribe("ask", Recorder(act).handle, group="g").ready()
        assert await bus.request("ask", 1, timeout=60.0) == "first"
        await bus.publish("ask", 2)
        await asyncio.sleep(60)
        assert bus.metrics().late_replies == 1
        assert len(raised) == 1


@BOTH
@virtual
async def test_replies_go_past_middleware_and_channels(url):
    seen = []

    class Watch(Middleware):
        async def publish(self, publication, proceed):
            seen.append(publication.channel)
            return await proceed(publication)

    async with virtual_bus(url) as bus:
        bus.use(Watch())
        everything = Recorder()
        await bus.subscribe("ask", Recorder(lambda message: "answer").handle, group="g").ready()
        await bus.subscribe(">", everything.handle, group="all").ready()
        assert await bus.request("ask", 1, timeout=60.0) == "answer"
        await asyncio.sleep(60)
        assert seen == ["ask"]
        assert [message.channel for message in everything.messages] == ["ask"]


@BOTH
@virtual
async def test_closing_answers_what_still_waits(url):
    async with virtual_bus(url) as bus:
        held = Recorder(lambda message: asyncio.Event().wait())
        await bus.subscribe("ask", held.handle, group="g").ready()
        asking = asyncio.create_task(bus.request("ask", 1, timeout=1000.0))
        await held.wait(1)
        await bus.close(drain=False)
        with pytest.raises(Closed):
            await asking


@virtual
async def test_a_reply_to_a_channel_of_ones_own():
    async with virtual_bus() as bus:
        answers = Recorder()
        bus.subscribe("answers", answers.handle)
        bus.subscribe("ask", Recorder(lambda message: message.payload + 1).handle)
        await bus.publish("ask", 1, reply_to="answers", correlation_id="mine")
        await idle()
        assert [(m.payload, m.correlation_id) for m in answers.messages] == [(2, "mine")]
