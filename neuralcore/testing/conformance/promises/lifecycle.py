"""Unsubscribing and closing: what runs is finished or given back, and the rest goes on."""

from __future__ import annotations

import asyncio

from neuralcore._core import Message
from neuralcore.messaging.errors import Closed
from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import Broken, expect, promise, same


@promise(mandatory=True)
async def unsubscribe(bed: Bed) -> None:
    """After unsubscribing nothing is delivered, and the other subscriptions go on."""
    bus, channel, leaving, staying = (
        await bed.bus(),
        bed.channel(),
        bed.collector(),
        bed.collector(),
    )
    subscription = await bed.subscribe(bus, channel, leaving.handle)
    await bed.subscribe(bus, channel, staying.handle)
    await bus.publish(channel, 1)
    await leaving.count(1)
    await bed.within(subscription.unsubscribe(), "unsubscribing")
    await bus.publish(channel, 2)
    await staying.every([1, 2])
    same(leaving.payloads, [1], "what the one that left had got")
    await bed.within(subscription.unsubscribe(), "unsubscribing twice")


@promise(mandatory=True)
async def unsubscribe_waits(bed: Bed) -> None:
    """Unsubscribing waits for the handler that runs."""
    bus, channel, gate = await bed.bus(), bed.channel(), bed.gate()
    finished: list[object] = []

    async def work(message: Message) -> None:
        await gate.wait()
        finished.append(message.payload)

    subscription = await bed.subscribe(bus, channel, work)
    await bus.publish(channel, 1)
    await gate.held(1)
    leaving = asyncio.create_task(subscription.unsubscribe(timeout=bed.harness.patience * 10))
    await bed.soon()
    expect(not leaving.done(), "it did not wait")
    gate.open()
    await bed.within(leaving, "unsubscribing once the handler has returned")
    same(finished, [1], "handlers that finished")


@promise("groups", mandatory=True)
async def subscribe_again(bed: Bed) -> None:
    """A channel can be subscribed again after the last subscription ended."""
    bus, channel, group = await bed.bus(), bed.channel(), bed.group()
    for n in range(3):
        got = bed.collector()
        subscription = await bed.subscribe(bus, channel, got.handle, group=group)
        await bus.publish(channel, n)
        await got.exactly(1)
        same(got.payloads, [n], f"what round {n} got")
        await bed.within(subscription.unsubscribe(), "unsubscribing")


@promise("groups", stores=True)
async def a_group_waits(bed: Bed) -> None:
    """What is published while no member of a group lives is there for the next one."""
    bus, channel, group = await bed.bus(), bed.channel(), bed.group()
    got = bed.collector()
    subscription = await bed.subscribe(bus, channel, got.handle, group=group)
    await bed.within(subscription.unsubscribe(), "unsubscribing")
    for n in range(20):
        await bus.publish(channel, n)
    await bed.subscribe(await bed.bus(), channel, got.handle, group=group)
    await got.every(range(20))


@promise(mandatory=True)
async def close_drains(bed: Bed) -> None:
    """Closing finishes what is being handled, and reports it."""
    bus, channel, gate = await bed.fresh(), bed.channel(), bed.gate()
    done: list[object] = []

    async def work(message: Message) -> None:
        await gate.wait()
        done.append(message.payload)

    await bed.subscribe(bus, channel, work, concurrency=3)
    for n in range(3):
        await bus.publish(channel, n)
    await gate.held(3)
    closing = asyncio.create_task(bus.close(drain=True, timeout=bed.harness.patience / 2))
    await bed.soon()
    expect(not closing.done(), "it did not wait for the handlers")
    gate.open()
    report = await bed.within(closing, "closing")
    same(sorted(done), [0, 1, 2], "handlers that finished")
    same((report.drained, report.handled, report.abandoned), (True, 3, 0), "the report")


@promise(mandatory=True)
async def closing_refuses_publishers(bed: Bed) -> None:
    """A bus that closes refuses publishers; its running handlers may still publish."""
    bus, channel, gate = await bed.fresh(), bed.channel(), bed.gate()
    published: list[object] = []

    async def work(message: Message) -> None:
        await gate.wait()
        published.append(await bus.publish(f"{channel}.last-words", "from a handler"))

    await bed.subscribe(bus, channel, work)
    await bus.publish(channel, 1)
    await gate.held(1)
    closing = asyncio.create_task(bus.close(drain=True, timeout=bed.harness.patience / 2))
    await bed.soon()
    await _refused(bus.publish, channel)
    gate.open()
    await bed.within(closing, "closing")
    same(len(published), 1, "messages published by the handler while closing")
    await _refused(bus.publish, channel)


async def _refused(publish: object, channel: str) -> None:
    try:
        await publish(channel, "too late")  # type: ignore[operator]
    except Closed:
        return
    raise Broken("a closing bus took a message from outside its handlers")


@promise("request_reply")
async def replies_while_closing(bed: Bed) -> None:
    """A handler that still runs while the bus closes can answer its request."""
    server, channel, gate = await bed.fresh(), bed.channel(), bed.gate()
    client = server if bed.capabilities.in_process else await bed.fresh()

    async def answer(message: Message) -> str:
        await gate.wait()
        return "answered"

    await bed.subscribe(server, channel, answer)
    asking = asyncio.create_task(client.request(channel, 1, timeout=bed.harness.patience))
    await gate.held(1)
    closing = asyncio.create_task(server.close(drain=True, timeout=bed.harness.patience / 2))
    await bed.soon()
    gate.open()
    same(await bed.within(asking, "the request"), "answered", "the reply")
    await bed.within(closing, "closing")


@promise(mandatory=True)
async def close_twice(bed: Bed) -> None:
    """Closing twice, or from several tasks at once, is harmless."""
    bus, got, channel = await bed.fresh(), bed.collector(), bed.channel()
    await bed.subscribe(bus, channel, got.handle)
    await bus.publish(channel, 1)
    closings = [bus.close(timeout=1.0) for _ in range(5)]
    reports = await bed.within(asyncio.gather(*closings), "five closings at once")
    same(len({id(report) for report in reports}), 1, "different reports of one closing")
    await bed.within(bus.close(), "closing again")


@promise(mandatory=True)
async def close_with_a_stuck_handler(bed: Bed) -> None:
    """A handler that does not end holds up closing until its deadline, no longer, and is not reported as done."""
    bus, channel, gate = await bed.fresh(), bed.channel(), bed.gate()
    await bed.subscribe(bus, channel, bed.collector(gate.wait).handle)
    await bus.publish(channel, 1)
    await gate.held(1)
    report = await bed.within(bus.close(drain=True, timeout=0.3), "closing", beyond=0.3)
    expect(not report.drained, "the report says that everything was handled")
    same(report.handled, 0, "messages reported as handled")
    same(report.released + report.abandoned, 1, "messages reported as given back or gone")


@promise("groups", stores=True)
async def closing_gives_back(bed: Bed) -> None:
    """What a closing client has fetched or is handling goes to another, and counts no attempt."""
    first, second, channel = await bed.fresh(), await bed.fresh(), bed.channel()
    group, gate, got = bed.group(), bed.gate(), bed.collector()
    await bed.subscribe(first, channel, bed.collector(gate.wait).handle, group=group)
    for n in range(10):
        await second.publish(channel, n)
    await gate.held(1)
    await bed.soon()
    report = await bed.within(first.close(drain=False), "closing")
    expect(not report.drained and report.abandoned == 0, f"the report is {report}")
    await bed.subscribe(second, channel, got.handle, group=group)
    await got.every(range(10))
    same({m.attempt for m in got.messages}, {1}, "attempts")
