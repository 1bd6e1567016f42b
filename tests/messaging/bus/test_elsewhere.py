"""Publishing and subscribing from threads and loops that are not the bus's own."""

import asyncio
import contextlib
import threading

import pytest

from neuralcore._core import Message
from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.errors import ChannelFull, Closed, NotStarted


async def test_a_plain_thread_publishes_without_waiting() -> None:
    got: list[int] = []
    done = asyncio.Event()

    async def collect(number: int) -> None:
        got.append(number)
        if number == 99:
            done.set()

    async with MessageBus() as bus:
        bus.subscribe("n", collect)
        thread = threading.Thread(target=lambda: [bus.publish_nowait("n", number) for number in range(100)])
        thread.start()
        await done.wait()
        thread.join()
    assert got == list(range(100))


async def test_a_plain_thread_waits_for_room_through_a_future() -> None:
    got: list[int] = []

    async def collect(number: int) -> None:
        await asyncio.sleep(0)
        got.append(number)

    def produce() -> None:
        for number in range(50):
            assert bus.publish_threadsafe("n", number).result(timeout=30)

    async with MessageBus(capacity=2) as bus:
        bus.subscribe("n", collect)
        await asyncio.to_thread(produce)
    assert got == list(range(50))


async def test_a_refused_publish_fails_its_future() -> None:
    async with MessageBus() as bus:
        stream = bus.stream("n", capacity=1, overflow="reject")
        first = bus.publish_threadsafe("n", 1)
        second = bus.publish_threadsafe("n", 2)
        assert await asyncio.wrap_future(first)
        with pytest.raises(ChannelFull) as caught:
            await asyncio.wrap_future(second)
        assert caught.value.message is not None
        assert caught.value.message.payload == 2
        await stream.close()


async def test_another_loop_publishes_and_waits_for_room() -> None:
    got: list[int] = []

    async def collect(number: int) -> None:
        await asyncio.sleep(0)
        got.append(number)

    async def produce() -> None:
        for number in range(50):
            await bus.publish("n", number)

    async with MessageBus(capacity=2) as bus:
        bus.subscribe("n", collect)
        await asyncio.to_thread(asyncio.run, produce())
    assert got == list(range(50))


async def test_another_loop_subscribes_and_handles_there() -> None:
    threads: set[int] = set()
    ready, leave = threading.Event(), threading.Event()

    async def handler(message: Message) -> None:
        threads.add(threading.get_ident())

    async def elsewhere() -> None:
        subscription = bus.subscribe("n", handler)
        ready.set()
        await asyncio.to_thread(leave.wait)
        await subscription.unsubscribe()

    async with MessageBus() as bus:
        thread = threading.Thread(target=asyncio.run, args=(elsewhere(),))
        thread.start()
        await asyncio.to_thread(ready.wait)
        for number in range(10):
            await bus.publish("n", number)
        leave.set()
        await asyncio.to_thread(thread.join)
        assert bus.metrics().acked == 10
    assert threads == {thread.ident}


async def test_closing_from_another_loop_closes() -> None:
    got: list[int] = []

    async def collect(number: int) -> None:
        got.append(number)

    bus = MessageBus()
    await bus.start()
    bus.subscribe("n", collect)
    await bus.publish("n", 1)
    report = await asyncio.to_thread(asyncio.run, bus.close())
    assert report.drained
    assert got == [1]


@pytest.mark.parametrize("verb", ["publish", "publish_nowait", "publish_many"])
async def test_a_verb_that_was_taken_before_the_start_works_once_the_bus_runs(verb: str) -> None:
    """What a thread is in the middle of when the bus starts; and what users hand to others while they set up."""
    bus, got = MessageBus(), list[int]()

    async def collect(number: int) -> None:
        got.append(number)

    bus.subscribe("n", collect)
    taken = getattr(bus, verb)
    with pytest.raises(NotStarted):
        taken("n", [1])
    async with bus:
        published = taken([("n", 2)]) if verb == "publish_many" else taken("n", 2)
        if verb != "publish_nowait":
            await published
    with pytest.raises(Closed):
        taken("n", [3])
    assert got == [2]


def test_a_bus_that_was_started_while_it_refused_says_not_started() -> None:
    bus = MessageBus()
    bus._life.stage = "running"  # by another thread, after this one was found to be too early
    with pytest.raises(NotStarted):
        bus._life.refuse()


async def test_a_thread_that_publishes_as_soon_as_it_may_is_heard() -> None:
    """Subscriptions begin before the bus runs: nothing that it takes meanwhile is for nobody."""
    bus, got = MessageBus(), asyncio.Event()
    for number in range(300):
        bus.subscribe(f"other.{number}", lambda message: None, blocking=False)
    bus.subscribe("work", lambda message: got.set(), blocking=False)

    def publish() -> None:
        while True:
            with contextlib.suppress(NotStarted):
                bus.publish_nowait("work", 1)
                return

    thread = threading.Thread(target=publish)
    thread.start()
    async with bus:
        await asyncio.to_thread(thread.join)
        await asyncio.wait_for(got.wait(), 5)
