"""Requests and replies through a transport's inboxes."""

import asyncio

import pytest

from neuralcore.messaging.errors import DecodeError, RequestFailed, RequestTimeout, Unsupported
from neuralcore.messaging.retry import RetryPolicy
from neuralcore.messaging.transport import Envelope
from neuralcore.testing import Recorder, virtual
from neuralcore.testing.memory import MemoryTransport


@virtual
async def test_a_reply_crosses_between_buses(town):
    asker, answerer = await town.bus(), await town.bus()

    async def total(numbers: list):
        return {"total": sum(numbers)}

    await answerer.subscribe("total", total, group="g").ready()
    assert await asker.request("total", [1, 2, 3]) == {"total": 6}
    await town.close()


@virtual
async def test_a_request_made_before_anybody_answers_is_answered_when_somebody_comes(town):
    asker = await town.bus()
    asking = asyncio.ensure_future(asker.request("late", 1, timeout=60))
    await asyncio.sleep(30)
    answerer = await town.bus()
    await answerer.subscribe("late", lambda message: "here", group="g", blocking=False).ready()
    assert await asking == "here"
    await town.close()


@virtual
async def test_the_responders_error_reaches_the_caller_once_it_will_not_retry(town):
    asker, answerer = await town.bus(), await town.bus()
    calls = []

    async def handler(message):
        calls.append(message.attempt)
        raise LookupError("no such thing")

    policy = RetryPolicy(max_attempts=3, base=1)
    await answerer.subscribe("find", handler, group="g", retry=policy).ready()
    with pytest.raises(RequestFailed, match="no such thing") as failed:
        await asker.request("find", 1, timeout=300)
    assert failed.value.type == "LookupError"
    assert calls == [1, 2, 3]
    await town.close()


@virtual
async def test_late_replies_are_dropped_and_counted(town):
    asker, answerer = await town.bus(), await town.bus()

    async def slow(message):
        await asyncio.sleep(5)
        return "too late"

    await answerer.subscribe("slow", slow, group="g").ready()
    with pytest.raises(RequestTimeout):
        await asker.request("slow", 1, timeout=1)
    await asyncio.sleep(10)
    assert asker.metrics().late_replies == 1
    await town.close()


@virtual
async def test_a_reply_to_a_requester_that_is_gone_is_counted(town):
    asker, answerer = await town.bus(), await town.bus()
    reached = asyncio.Event()

    async def slow(message):
        reached.set()
        await asyncio.sleep(5)
        return "nobody is there"

    await answerer.subscribe("slow", slow, group="g").ready()
    asking = asyncio.ensure_future(asker.request("slow", 1))
    await reached.wait()
    await asker.close()
    await asyncio.gather(asking, return_exceptions=True)
    await asyncio.sleep(10)
    assert answerer.metrics().transport["replies_lost"] == 1
    assert town.stats("slow").depth == 0
    await town.close()


@virtual
async def test_a_reply_that_cannot_be_encoded_is_said_to_the_requester_and_fails_nothing(town):
    asker, answerer = await town.bus(), await town.bus()
    handler = Recorder(lambda message: object())
    await answerer.subscribe("odd", handler.handle, group="g").ready()
    with pytest.raises(RequestFailed) as failed:
        await asker.request("odd", 1)
    assert failed.value.type == "EncodeError"
    await asyncio.sleep(60)
    assert handler.attempts == [1]
    assert (answerer.metrics().acked, answerer.metrics().dead_lettered) == (1, 0)
    assert answerer.metrics().transport["replies_lost"] == 1
    await town.close()


@virtual
async def test_a_reply_that_cannot_be_decoded_is_the_callers_error(town):
    asker = await town.bus()
    asking = asyncio.ensure_future(asker.request("raw", 1))
    await asyncio.sleep(1)
    (request,) = town.browse("raw")
    reply = Envelope(
        id="r",
        channel=request.reply_to,
        body=b"{",
        content_type="application/json",
        correlation_id=request.correlation_id,
    )
    town.store.publish(reply, town.now())
    with pytest.raises(DecodeError):
        await asking
    await town.close()


@virtual
async def test_a_reply_may_go_to_a_channel_of_the_publishers_own(town):
    bus, seen = await town.bus(), []
    await bus.subscribe("ask", lambda message: message.payload * 2, group="g", blocking=False).ready()
    await bus.subscribe(
        "answers", lambda m: seen.append((m.payload, m.correlation_id)), group="g", blocking=False
    ).ready()
    await bus.publish("ask", 21, reply_to="answers", correlation_id="c")
    await town.eventually(lambda: seen == [(42, "c")])
    await town.close()


@virtual
async def test_a_bus_whose_inbox_was_forgotten_has_it_again(town):
    transport = MemoryTransport(town.store)
    asker, answerer = await town.bus(transport), await town.bus()
    await answerer.subscribe("echo", lambda m: m.payload, group="g", blocking=False).ready()
    transport.freeze()
    await asyncio.sleep(100)
    transport.thaw()
    await asyncio.sleep(40)
    assert await asker.request("echo", "still there") == "still there"
    assert asker.metrics().transport["data_lost"] == 1
    await town.close()


@virtual
async def test_without_inboxes_a_request_says_what_is_missing(town):
    class Mute(MemoryTransport):
        capabilities = type(MemoryTransport.capabilities)(groups=True, broadcast=True)

    bus = await town.bus(Mute(town.store))
    with pytest.raises(Unsupported, match="request_reply"):
        await bus.request("echo", 1)
    await town.close()
