"""A message is settled after its handler returned, not before; what is not settled comes again."""

from __future__ import annotations

from neuralcore._core import Message
from neuralcore.messaging.errors import AlreadySettled
from neuralcore.messaging.retry import Retry, RetryPolicy
from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import Broken, expect, promise, same

FAST = RetryPolicy(max_attempts=5, base=0.01, cap=0.02)


@promise(mandatory=True)
async def resend_on_error(bed: Bed) -> None:
    """A handler that raises gets the message again, until it succeeds."""
    bus, channel = await bed.bus(), bed.channel()

    async def fail_twice(message: Message) -> None:
        if message.attempt < 3:
            raise RuntimeError("on purpose")

    got = bed.collector(fail_twice)
    await bed.subscribe(bus, channel, got.handle, retry=FAST)
    await bus.publish(channel, "again", headers={"kept": "yes"}, correlation_id="c")
    await got.exactly(3)
    same([m.attempt for m in got.messages], [1, 2, 3], "attempts")
    same(len({m.id for m in got.messages}), 1, "ids of one message delivered three times")
    same([dict(m.headers).get("kept") for m in got.messages], ["yes"] * 3, "headers of a retry")
    same([m.payload for m in got.messages], ["again"] * 3, "payloads of a retry")


@promise("groups", mandatory=True)
async def nothing_before_the_handler_returned(bed: Bed) -> None:
    """A message whose handler was cut off before it returned is delivered to another member."""
    first, channel, group = await bed.bus(), bed.channel(), bed.group()
    gate = bed.gate()
    cut, other = bed.collector(gate.wait), bed.collector()
    options = {"group": group, "retry": FAST, "capacity": 10}
    holding = await bed.subscribe(first, channel, cut.handle, **options)
    await first.publish(channel, "held")
    await gate.held(1)
    await bed.quiet()
    await bed.subscribe(await bed.bus(), channel, other.handle, **options)
    await bed.within(holding.unsubscribe(drain=False, timeout=1.0), "unsubscribing")
    await other.count(1, "deliveries to another member", beyond=bed.harness.lease)
    same(other.payloads, ["held"], "what the other member got")
    same(other.messages[0].attempt, 1, "the attempt of a message that was given back")
    await other.exactly(1)


@promise("groups", stores=True, mandatory=True)
async def acked_stays_acked(bed: Bed) -> None:
    """What was handled is not delivered again after its client has left."""
    first, second, channel = await bed.fresh(), await bed.fresh(), bed.channel()
    group, got, again = bed.group(), bed.collector(), bed.collector()
    await bed.subscribe(first, channel, got.handle, group=group)
    for n in range(10):
        await second.publish(channel, n)
    await got.every(range(10))
    await bed.within(first.close(), "closing")
    await bed.subscribe(second, channel, again.handle, group=group)
    await bed.advance(1.5 * bed.harness.lease)
    await again.exactly(0, "messages that were handled before, and came again")


@promise(mandatory=True)
async def attempts_count_from_one(bed: Bed) -> None:
    """Each failed attempt counts one, for each message by itself."""
    bus, channel = await bed.bus(), bed.channel()

    async def fail(message: Message) -> None:
        if message.attempt <= message.payload:
            raise RuntimeError("on purpose")

    got = bed.collector(fail)
    await bed.subscribe(bus, channel, got.handle, retry=FAST, concurrency=2)
    for failures in range(4):
        await bus.publish(channel, failures)
    await got.exactly(1 + 2 + 3 + 4)
    for failures in range(4):
        attempts = [m.attempt for m in got.messages if m.payload == failures]
        same(attempts, list(range(1, failures + 2)), f"attempts of one that fails {failures} times")


@promise(mandatory=True)
async def release_counts_nothing(bed: Bed) -> None:
    """A message that is given back comes again, and counts no attempt."""
    bus, channel = await bed.bus(), bed.channel()
    given_back = 0

    async def give_back(message: Message) -> None:
        nonlocal given_back
        if given_back < 3:
            given_back += 1
            await message.release()

    got = bed.collector(give_back)
    await bed.subscribe(bus, channel, got.handle)
    await bus.publish(channel, "boomerang")
    await got.exactly(4)
    same([m.attempt for m in got.messages], [1, 1, 1, 1], "attempts")


@promise(mandatory=True)
async def explicit(bed: Bed) -> None:
    """A message that its handler settled itself is settled as it said, once."""
    bus, channel = await bed.bus(), bed.channel()
    again: list[BaseException] = []

    async def settle(message: Message) -> None:
        if message.payload == "nack" and message.attempt == 1:
            await message.nack(0.01)
        else:
            await message.ack()
        try:
            await message.ack()
        except AlreadySettled as error:
            again.append(error)

    got = bed.collector(settle)
    await bed.subscribe(bus, channel, got.handle)
    await bus.publish(channel, "ack")
    await bus.publish(channel, "nack")
    await got.exactly(3)
    same(len(again), 3, "second settlements refused")
    same(sorted((m.payload, m.attempt) for m in got.messages)[1:], [("nack", 1), ("nack", 2)], "")


@promise(mandatory=True)
async def after_ack_an_error_changes_nothing(bed: Bed) -> None:
    """A handler that acked and then raises does not get the message again."""
    bus, channel = await bed.bus(), bed.channel()

    async def ack_and_raise(message: Message) -> None:
        await message.ack()
        raise RuntimeError("on purpose, after the ack")

    got = bed.collector(ack_and_raise)
    await bed.subscribe(bus, channel, got.handle, retry=FAST)
    await bus.publish(channel, 1)
    await got.exactly(1)


@promise(mandatory=True)
async def stream(bed: Bed) -> None:
    """A stream's messages are settled explicitly; what was not comes again."""
    bus, channel = await bed.bus(), bed.channel()
    seen: list[tuple[object, int]] = []

    async def pull() -> None:
        async with bus.stream(channel, **bed.placed({"retry": FAST})) as stream:
            await bus.publish(channel, "good")
            await bus.publish(channel, "bad")
            async for message in stream:
                seen.append((message.payload, message.attempt))
                if message.payload == "bad" and message.attempt == 1:
                    await message.nack(0.01)
                else:
                    await message.ack()
                if len(seen) == 3:
                    break

    await bed.within(pull(), "the stream's third message")
    same([each for each in seen if each[0] == "good"], [("good", 1)], "what the stream gave of one that was acked")
    same([each for each in seen if each[0] == "bad"], [("bad", 1), ("bad", 2)], "what it gave of one that was not")


@promise(mandatory=True)
async def batches(bed: Bed) -> None:
    """A batch handler gets what has come meanwhile; its messages are settled together, or one by one."""
    bus, channel, gate = await bed.bus(), bed.channel(), bed.gate()
    everything = bed.collector()
    sizes: list[int] = []
    failed = False

    async def handle(messages: list[Message]) -> None:
        nonlocal failed
        sizes.append(len(messages))
        for message in messages:
            await everything.handle(message)
        await gate.wait()
        await messages[0].ack()
        if not failed and len(messages) > 1:
            failed = True
            raise RuntimeError("on purpose")

    await bed.subscribe(bus, channel, handle, batch=5, retry=FAST)
    await bus.publish_many([(channel, n) for n in range(20)])
    await gate.held(1)
    await bed.quiet()
    gate.open()
    await everything.count(20 + 1)
    await bed.quiet()
    expect(failed and 1 < max(sizes) <= 5, f"batches of {sizes} messages where 5 were asked for")
    again = [m.payload for m in everything.messages if m.attempt == 2]
    first = [m.payload for m in everything.messages if m.attempt == 1]
    same(sorted(first), list(range(20)), "first attempts")
    expect(1 <= len(again) <= 4, f"{len(again)} messages of a failed batch of 5 came again, not 4")


@promise(mandatory=True)
async def retry_after(bed: Bed) -> None:
    """``raise Retry(after=…)`` has the message come again, not before."""
    bus, channel, wait = await bed.bus(), bed.channel(), 0.3

    async def later(message: Message) -> None:
        if message.attempt == 1:
            raise Retry(after=wait)

    got = bed.collector(later)
    await bed.subscribe(bus, channel, got.handle)
    await bus.publish(channel, 1)
    await got.exactly(2)
    passed = got.times[1] - got.times[0]
    if passed < wait * 0.99:
        raise Broken(f"Retry(after={wait}) came again after {passed:.3f} s")
