"""Requests and their replies."""

from __future__ import annotations

import asyncio
from typing import Any

from neuralcore._core import Message
from neuralcore.messaging.errors import NoSubscribers, NotARequest, RequestFailed, RequestTimeout
from neuralcore.messaging.retry import RetryPolicy
from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import Broken, expect, promise, same

TWICE = RetryPolicy(max_attempts=2, base=0.01)


@promise("request_reply")
async def returned(bed: Bed) -> None:
    """What a handler returns is the reply, of whatever kind."""
    server, client, channel = await bed.bus(), await bed.bus(), bed.channel()

    async def echo(message: Message) -> Any:
        return message.payload

    await bed.subscribe(server, channel, echo)
    payloads: tuple[Any, ...] = (1, "é", None, b"\x00", {"deep": [None, {"er": 2.5}]}, [], False)
    for payload in payloads:
        reply = await client.request(channel, payload, timeout=bed.harness.patience)
        same(reply, payload, "the reply")


@promise("request_reply")
async def replied(bed: Bed) -> None:
    """``message.reply`` answers while the handler goes on."""
    server, client, channel, gate = await bed.bus(), await bed.bus(), bed.channel(), bed.gate()

    async def answer_and_go_on(message: Message) -> None:
        await message.reply(message.payload + 1)
        await gate.wait()

    await bed.subscribe(server, channel, answer_and_go_on)
    same(await client.request(channel, 41, timeout=bed.harness.patience), 42, "the reply")
    await gate.held(1)
    gate.open()


@promise("request_reply")
async def each_its_own(bed: Bed) -> None:
    """Many requests at once each get their own reply."""
    server, client, channel = await bed.bus(), await bed.bus(), bed.channel()

    async def double(message: Message) -> int:
        for _ in range(message.payload % 5):
            await asyncio.sleep(0)
        return int(message.payload) * 2

    await bed.subscribe(server, channel, double, concurrency=8)
    patience = bed.harness.patience
    asked = [client.request(channel, n, timeout=patience) for n in range(100)]
    replies = await asyncio.gather(*asked)
    same(replies, [2 * n for n in range(100)], "the replies")


@promise("request_reply")
async def answered_once(bed: Bed) -> None:
    """A request is answered by one reply: none is left over, and it is handled once."""
    server, client, channel = await bed.bus(), await bed.bus(), bed.channel()

    async def echo(message: Message) -> Any:
        return message.payload

    got = bed.collector(echo)
    await bed.subscribe(server, channel, got.handle)
    for n in range(10):
        same(await client.request(channel, n, timeout=bed.harness.patience), n, "the reply")
    await got.exactly(10, "requests handled")
    same(client.metrics().late_replies, 0, "replies that nobody waited for")


@promise("request_reply")
async def error(bed: Bed) -> None:
    """A responder that fails for good makes the request raise RequestFailed, with type and text."""
    server, client, channel = await bed.bus(), await bed.bus(), bed.channel()

    async def fail(message: Message) -> None:
        raise KeyError("no such thing")

    got = bed.collector(fail)
    await bed.subscribe(server, channel, got.handle, retry=TWICE, dead_letter=False)
    try:
        await client.request(channel, 1, timeout=bed.harness.patience)
    except RequestFailed as failure:
        same(failure.type, "KeyError", "the error's type")
        expect("no such thing" in failure.text, f"the error's text is {failure.text!r}")
    else:
        raise Broken("the request did not fail")
    same(len(got.messages), 2, "attempts before the error was answered")


@promise("request_reply")
async def after_a_retry(bed: Bed) -> None:
    """A responder that succeeds on its retry answers then."""
    server, client, channel = await bed.bus(), await bed.bus(), bed.channel()

    async def second_time(message: Message) -> str:
        if message.attempt == 1:
            raise RuntimeError("on purpose")
        return "done"

    await bed.subscribe(server, channel, second_time, retry=TWICE)
    same(await client.request(channel, 1, timeout=bed.harness.patience), "done", "the reply")


@promise("request_reply")
async def timeout(bed: Bed) -> None:
    """A request without an answer in time raises RequestTimeout; the late reply is dropped and counted."""
    server, client, channel, gate = await bed.bus(), await bed.bus(), bed.channel(), bed.gate()

    async def late(message: Message) -> str:
        if message.payload == "slow":
            await gate.wait()
        return f"to {message.payload}"

    await bed.subscribe(server, channel, late, concurrency=2)
    began = bed.now
    try:
        await client.request(channel, "slow", timeout=0.3)
    except RequestTimeout as late_error:
        same(late_error.channel, channel, "the channel in RequestTimeout")
        expect(bed.now - began >= 0.299, "it timed out too early")
    else:
        raise Broken("the request did not time out")
    gate.open()
    await bed.quiet()
    same(client.metrics().late_replies, 1, "late replies counted")
    reply = await client.request(channel, "fast", timeout=bed.harness.patience)
    same(reply, "to fast", "the reply to the next request")


@promise("request_reply")
async def not_a_request(bed: Bed) -> None:
    """Replying to a message that asks for no reply raises NotARequest."""
    bus, channel = await bed.bus(), bed.channel()
    raised: list[str] = []

    async def reply(message: Message) -> None:
        try:
            await message.reply("nobody asked")
        except NotARequest as refusal:
            raised.append(refusal.channel)

    got = bed.collector(reply)
    await bed.subscribe(bus, channel, got.handle)
    await bus.publish(channel, 1)
    await got.exactly(1)
    same(len(raised), 1, "refusals")


@promise("in_process", "request_reply")
async def nobody_there(bed: Bed) -> None:
    """In process, a request that nobody can answer raises NoSubscribers at once."""
    bus, channel = await bed.bus(), bed.channel()
    try:
        await bus.request(channel, 1, timeout=bed.harness.patience)
    except NoSubscribers as nobody:
        same(nobody.channel, channel, "the channel in NoSubscribers")
    else:
        raise Broken("the request was answered")
