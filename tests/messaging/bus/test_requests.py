"""Request and reply."""

import asyncio
import time

import pytest

from neuralcore._core import Message
from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.errors import (
    ChannelFull,
    NoSubscribers,
    NotARequest,
    RequestError,
    RequestFailed,
    RequestTimeout,
)
from neuralcore.messaging.middleware import Middleware, Publication, Publish
from neuralcore.messaging.retry import RetryPolicy
from neuralcore.testing import virtual


async def test_the_return_value_is_the_reply() -> None:
    async def double(number: int) -> int:
        return 2 * number

    async with MessageBus() as bus:
        bus.subscribe("double", double)
        assert await bus.request("double", 21) == 42


async def test_a_handler_may_reply_itself_and_its_return_value_is_then_no_second_one() -> None:
    async def greet(message: Message) -> None:
        await message.reply("hello")

    async with MessageBus() as bus:
        bus.subscribe("greet", greet)
        assert await bus.request("greet", None) == "hello"
        await bus.close()
        assert bus.metrics().late_replies == 0


async def test_nobody_to_answer_is_said_at_once() -> None:
    async with MessageBus() as bus:
        with pytest.raises(NoSubscribers):
            await bus.request("nobody", None)


@virtual
async def test_a_reply_that_does_not_come_in_time_is_a_clear_error_and_a_late_one_is_counted() -> None:
    async def slow(message: object) -> str:
        await asyncio.sleep(5)
        return "too late"

    loop = asyncio.get_running_loop()
    async with MessageBus(clock=loop.clock) as bus:  # type: ignore[attr-defined]
        bus.subscribe("slow", slow)
        before = loop.time()
        with pytest.raises(RequestTimeout, match="'slow' within 2 s"):
            await bus.request("slow", None, timeout=2)
        assert loop.time() - before == pytest.approx(2)
        await bus.close()
        assert bus.metrics().late_replies == 1


@virtual
async def test_requests_with_many_time_outs_each_end_at_their_own() -> None:
    async def never(message: object) -> None:
        await asyncio.Event().wait()

    loop = asyncio.get_running_loop()
    before = loop.time()

    async def ask(timeout: float) -> float:
        with pytest.raises(RequestTimeout):
            await bus.request("never", None, timeout=timeout)
        return loop.time() - before

    async with MessageBus(clock=loop.clock) as bus:  # type: ignore[attr-defined]
        bus.subscribe("never", never)
        ended = await asyncio.gather(*(ask(timeout) for timeout in (5, 1, 3, 2, 4)))
        assert ended == pytest.approx([5, 1, 3, 2, 4])
        await bus.close(drain=False)


async def test_the_responders_error_comes_after_its_last_attempt() -> None:
    attempts: list[int] = []

    async def failing(message: Message) -> None:
        attempts.append(message.attempt)
        raise LookupError("no such thing")

    async with MessageBus(retry=RetryPolicy(max_attempts=3, base=0)) as bus:
        bus.subscribe("q", failing)
        with pytest.raises(RequestFailed, match="LookupError: no such thing") as caught:
            await bus.request("q", None)
    assert caught.value.type == "LookupError"
    assert attempts == [1, 2, 3]


async def test_the_first_of_several_replies_answers() -> None:
    async def first(message: object) -> str:
        return "first"

    async def second(message: object) -> str:
        await asyncio.sleep(0)
        return "second"

    async with MessageBus() as bus:
        bus.subscribe("q", first)
        bus.subscribe("q", second)
        assert await bus.request("q", None) == "first"
        await bus.close()
        assert bus.metrics().late_replies == 1


async def test_replying_to_what_asked_for_nothing_is_an_error() -> None:
    async with MessageBus() as bus, bus.stream("a") as stream:
        await bus.publish("a", None)
        message = await anext(stream)
        with pytest.raises(NotARequest):
            await message.reply(1)
        await message.ack()


async def test_a_cancelled_request_is_forgotten() -> None:
    async def never(message: object) -> None:
        await asyncio.Event().wait()

    async with MessageBus() as bus:
        bus.subscribe("never", never)
        asking = asyncio.create_task(bus.request("never", None))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert len(bus._replies) == 0
        await bus.close(drain=False)


async def test_replies_may_go_to_a_channel_of_the_publishers_own() -> None:
    async def double(number: int) -> int:
        return 2 * number

    async with MessageBus() as bus, bus.stream("answers") as answers:
        bus.subscribe("double", double)
        await bus.publish("double", 4, reply_to="answers", correlation_id="one")
        answer = await anext(answers)
        assert (answer.payload, answer.correlation_id) == (8, "one")
        await answer.ack()


async def test_many_requests_leave_nothing_behind() -> None:
    async def echo(number: int) -> int:
        return number

    async with MessageBus() as bus:
        bus.subscribe("echo", echo, concurrency=4)
        for start in range(0, 1000, 50):
            numbers = range(start, start + 50)
            assert await asyncio.gather(*(bus.request("echo", n) for n in numbers)) == list(numbers)
        assert len(bus._replies) == 0
        (deadlines,) = bus._replies._deadlines.values()
        assert not deadlines.waiting


def test_a_request_from_another_loop_gets_its_reply_there() -> None:
    async def echo(number: int) -> int:
        return number

    async def main() -> None:
        async with MessageBus() as bus:
            bus.subscribe("echo", echo)
            answer = await asyncio.to_thread(asyncio.run, bus.request("echo", 7, timeout=10))
            assert answer == 7

    before = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - before < 30


async def test_a_request_that_was_dropped_says_by_what() -> None:
    class Drops(Middleware):
        async def publish(self, publication: Publication, proceed: Publish) -> str | None:
            return None

    async with MessageBus() as bus, bus.stream("q", capacity=1, overflow="drop_new") as stream:
        await bus.publish("q", 0)
        with pytest.raises(ChannelFull):
            await bus.request("q", 1)
        bus.use(Drops())
        with pytest.raises(RequestError, match="dropped on its way, by middleware"):
            await bus.request("q", 1)
        assert len(bus._replies) == 0
        await (await anext(stream)).ack()
