"""Pulling messages and settling them explicitly."""

import asyncio
import gc
import threading

import pytest

from neuralcore._core import Message
from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.errors import AlreadySettled
from neuralcore.messaging.retry import RetryPolicy


async def test_a_stream_listens_from_when_it_is_made() -> None:
    got: list[int] = []
    async with MessageBus() as bus:
        stream = bus.stream("n.*")
        for number in range(5):
            await bus.publish(f"n.{number}", number)
        async for message in stream:
            got.append(message.payload)
            await message.ack()
            if len(got) == 5:
                break
        await stream.close()
        assert bus.metrics().acked == 5
    assert got == [0, 1, 2, 3, 4]


async def test_a_stream_waits_for_messages() -> None:
    async with MessageBus() as bus, bus.stream("n") as stream:
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        assert not waiting.done()
        await bus.publish("n", "here")
        message = await waiting
        assert message.payload == "here"
        await message.ack()


async def test_settling_twice_is_an_error() -> None:
    async with MessageBus() as bus, bus.stream("n") as stream:
        await bus.publish("n", 1)
        message = await anext(stream)
        await message.ack()
        for again in (message.ack, message.nack, message.reject, message.release):
            with pytest.raises(AlreadySettled):
                await again()


async def test_nack_counts_an_attempt_and_release_does_not() -> None:
    async with MessageBus() as bus, bus.stream("n") as stream:
        await bus.publish("n", 1)
        first = await anext(stream)
        await first.release()
        second = await anext(stream)
        assert second.attempt == 1
        await second.nack(0)
        third = await anext(stream)
        assert third.attempt == 2
        await third.ack()


async def test_rejecting_dead_letters_with_the_reason() -> None:
    async with MessageBus() as bus, bus.stream("n") as stream, bus.stream("_dlq.n") as dead:
        await bus.publish("n", "bad", headers={"mine": "kept"})
        await (await anext(stream)).reject("not wanted")
        letter = await anext(dead)
        assert letter.payload == "bad"
        assert letter.headers["nc-dlq-reason"] == "rejected"
        assert letter.headers["nc-dlq-error"] == "not wanted"
        assert letter.headers["mine"] == "kept"
        await letter.ack()


async def test_the_last_nack_dead_letters() -> None:
    once_more = RetryPolicy(max_attempts=2)
    async with MessageBus() as bus, bus.stream("n", retry=once_more) as stream, bus.stream("_dlq.n") as dead:
        await bus.publish("n", 1)
        await (await anext(stream)).nack(0)
        await (await anext(stream)).nack(0)
        letter = await anext(dead)
        assert letter.headers["nc-dlq-attempts"] == "2"
        await letter.ack()


async def test_closing_a_stream_gives_back_what_it_holds_to_its_group() -> None:
    async with MessageBus() as bus:
        first = bus.stream("n", group="g")
        second = bus.stream("n", group="g")
        await bus.publish("n", 1)
        held = await anext(first)
        await first.close()
        again = await anext(second)
        assert (again.id, again.attempt) == (held.id, 1)
        await again.ack()
        await second.close()


async def test_a_stream_that_is_let_go_stops_listening() -> None:
    async with MessageBus() as bus:
        await bus.publish("n", 0)
        stream = bus.stream("n")
        await bus.publish("n", 1)
        async for message in stream:
            await message.ack()
            break
        del stream, message
        gc.collect()
        while bus.metrics().channels["n"].unrouted < 2:
            await bus.publish("n", 2)
            await asyncio.sleep(0)


async def test_closing_the_bus_ends_its_streams() -> None:
    got: list[Message] = []

    async def consume() -> None:
        async for message in bus.stream("n"):
            got.append(message)
            await message.ack()

    bus = MessageBus()
    await bus.start()
    consuming = asyncio.create_task(consume())
    await asyncio.sleep(0)
    await bus.publish("n", 1)
    assert (await bus.close()).drained
    await consuming
    assert len(got) == 1


async def test_closing_a_stream_ends_its_iteration_at_once_and_leaves_the_others() -> None:
    async def consume() -> list[Message]:
        return [message async for message in first]

    async with MessageBus() as bus, bus.stream("n", group="g") as first, bus.stream("n", group="g") as second:
        consuming = [asyncio.create_task(consume()) for _ in range(2)]
        waiting = asyncio.create_task(anext(second))
        await asyncio.sleep(0)
        await first.close()
        assert await asyncio.wait_for(asyncio.gather(*consuming), 5) == [[], []]
        await bus.publish("n", 1)
        message = await waiting
        await message.ack()
    assert message.payload == 1


async def test_a_stream_is_closed_from_another_loop_than_the_one_that_waits() -> None:
    waits = threading.Event()

    async def consume() -> int:
        asyncio.get_running_loop().call_later(0, waits.set)
        return len([message async for message in first])

    async with MessageBus() as bus, bus.stream("n", group="g") as first, bus.stream("n", group="g"):
        consuming = asyncio.create_task(asyncio.to_thread(asyncio.run, consume()))
        await asyncio.to_thread(waits.wait)
        await first.close()
        assert await asyncio.wait_for(consuming, 5) == 0


async def test_cancelling_one_that_waits_on_a_stream_leaves_nothing_waiting() -> None:
    async with MessageBus() as bus, bus.stream("n") as stream:
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not stream._waiting
        await bus.publish("n", 1)
        message = await anext(stream)
        assert message.payload == 1
        await message.ack()
    assert asyncio.all_tasks() == {asyncio.current_task()}
