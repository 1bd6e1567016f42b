"""Handlers of every kind, and how subscriptions begin, share and end."""

import asyncio
import contextvars
import threading
from dataclasses import dataclass

import pytest

from neuralcore._core import Message
from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.errors import BadHandler, InvalidChannelName
from neuralcore.messaging.retry import RetryPolicy


@dataclass
class Task:
    name: str
    weight: int = 1


async def test_a_handler_gets_the_message() -> None:
    got: list[Message] = []

    async def handler(message: Message) -> None:
        got.append(message)

    async with MessageBus() as bus:
        bus.subscribe("a.*", handler)
        id = await bus.publish("a.b", {"x": 1}, priority=3, headers={"h": "v"}, key="k", correlation_id="c")
    (message,) = got
    assert (message.id, message.channel, message.payload, message.priority) == (id, "a.b", {"x": 1}, 3)
    assert (dict(message.headers), message.key, message.correlation_id) == ({"h": "v"}, "k", "c")
    assert message.attempt == 1


async def test_an_annotation_decodes_the_payload() -> None:
    got: list[object] = []

    async def typed(task: Task) -> None:
        got.append(task)

    async def both(task: Task, message: Message) -> None:
        got.append((task.name, message.channel))

    async with MessageBus() as bus:
        bus.subscribe("t", typed)
        bus.subscribe("b", both)
        await bus.publish("t", {"name": "one"})
        await bus.publish("b", Task("two", 2))
    assert got == [Task("one"), ("two", "b")]


async def test_a_payload_that_does_not_fit_is_dead_lettered_at_once() -> None:
    letters: list[Message] = []

    async def typed(task: Task) -> None:
        raise AssertionError("not reached")

    async def bury(letter: Message) -> None:
        letters.append(letter)

    async with MessageBus() as bus:
        bus.subscribe("t", typed)
        bus.subscribe("_dlq.t", bury)
        await bus.publish("t", {"nome": "x"})
    assert letters[0].headers["nc-dlq-reason"] == "undecodable"
    assert letters[0].headers["nc-dlq-attempts"] == "1"


async def test_plain_functions_run_in_threads_with_the_messages_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    got: list[tuple[bool, str]] = []
    variable.set("of the subscriber")

    def blocking(message: Message) -> None:
        got.append((threading.current_thread() is threading.main_thread(), variable.get()))

    async with MessageBus() as bus:
        bus.subscribe("a", blocking)
        bus.subscribe("a", blocking, blocking=False)
        await bus.publish("a", None)
    assert sorted(got) == [(False, "of the subscriber"), (True, "of the subscriber")]


@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration, KeyError], ids=lambda error: error.__name__)
@pytest.mark.parametrize("blocking", [True, False])
async def test_whatever_a_plain_function_raises_is_a_failed_attempt(error: type[Exception], blocking: bool) -> None:
    attempts: list[int] = []
    letters: list[str] = []

    def fails(message: Message) -> None:
        attempts.append(message.attempt)
        raise error("nothing left")

    async with MessageBus(retry=RetryPolicy(max_attempts=2, base=0)) as bus:
        bus.subscribe("a", fails, blocking=blocking)
        bus.subscribe("_dlq.a", lambda letter: letters.append(letter.headers["nc-dlq-error"]), blocking=False)
        await bus.publish("a", None)
        assert (await bus.close()).drained
    assert attempts == [1, 2]
    assert "nothing left" in letters[0]


async def test_a_filter_that_stops_an_iteration_fails_the_attempt() -> None:
    letters: list[int] = []

    def accepts(message: Message) -> bool:
        return next(iter(()))

    async with MessageBus(retry=RetryPolicy(max_attempts=2, base=0)) as bus:
        bus.subscribe("a", print, filter=accepts)
        bus.subscribe("_dlq.a", lambda letter: letters.append(letter.payload), blocking=False)
        await bus.publish("a", 1)
        assert (await bus.close()).drained
    assert letters == [1]


async def test_the_decorated_name_stays_the_function() -> None:
    async with MessageBus() as bus:

        @bus.subscribe("one")
        @bus.subscribe("two")
        async def double(number: int) -> int:
            """Twice."""
            return 2 * number

        assert await double(4) == 8
        assert double.__doc__ == "Twice."
        assert await bus.request("one", 5, timeout=5) == await bus.request("two", 5, timeout=5) == 10


async def test_a_group_shares_and_broadcasts_copy() -> None:
    got: dict[str, list[int]] = {"a": [], "b": [], "all": []}

    def handler(name: str):  # type: ignore[no-untyped-def]
        async def handle(number: int) -> None:
            got[name].append(number)
            await asyncio.sleep(0)

        return handle

    async with MessageBus() as bus:
        bus.subscribe("n", handler("a"), group="g")
        bus.subscribe("n", handler("b"), group="g")
        bus.subscribe("n", handler("all"), broadcast=True)
        for number in range(20):
            await bus.publish("n", number)
    assert sorted(got["a"] + got["b"]) == got["all"] == list(range(20))
    assert got["a"]
    assert got["b"]


@pytest.mark.parametrize(
    "different", [{"capacity": 5}, {"overflow": "reject"}, {"retry": RetryPolicy(max_attempts=1)}, {"filter": bool}]
)
async def test_members_of_a_group_must_agree(different: dict[str, object]) -> None:
    async with MessageBus() as bus:
        bus.subscribe("n", print, group="g")
        with pytest.raises(BadHandler, match=f"must agree.*{next(iter(different))}"):
            bus.subscribe("n", print, group="g", **different)  # type: ignore[call-overload]


async def test_concurrency_handles_so_many_at_once() -> None:
    running, most = 0, 0
    release = asyncio.Event()

    async def handler(message: object) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            release.set()
        await release.wait()
        running -= 1

    async with MessageBus() as bus:
        bus.subscribe("n", handler, concurrency=3)
        await bus.publish_many([("n", None)] * 9)
    assert most == 3


async def test_a_filter_refuses_and_acks() -> None:
    got: list[int] = []

    async def handler(number: int) -> None:
        got.append(number)

    async with MessageBus() as bus:
        bus.subscribe("n", handler, filter=lambda message: message.payload % 2 == 0)
        await bus.publish_many([("n", number) for number in range(6)])
        await bus.close()
        assert bus.metrics().acked == 6
    assert got == [0, 2, 4]


async def test_a_batch_handler_gets_lists_and_may_settle_one_by_one() -> None:
    sizes: list[int] = []
    again: list[int] = []

    async def handler(messages: list[Message]) -> None:
        sizes.append(len(messages))
        for message in messages:
            if message.payload == 3 and message.attempt == 1:
                await message.nack(0)
            elif message.attempt > 1:
                again.append(message.payload)

    async with MessageBus() as bus:
        bus.subscribe("n", handler, batch=4)
        await bus.publish_many([("n", number) for number in range(10)])
    assert max(sizes) == 4
    assert sum(sizes) == 11
    assert again == [3]


async def test_a_filter_that_raises_fails_its_message_and_not_the_batch() -> None:
    got: list[int] = []
    letters: list[tuple[int, str]] = []

    def accepts(message: Message) -> bool:
        if message.payload == 2:
            raise KeyError("broken")
        return bool(message.payload)

    async def handler(messages: list[Message]) -> None:
        got.extend(message.payload for message in messages)

    def bury(letter: Message) -> None:
        letters.append((letter.payload, letter.headers["nc-dlq-attempts"]))

    async with MessageBus(retry=RetryPolicy(max_attempts=3, base=0)) as bus:
        bus.subscribe("n", handler, batch=5, filter=accepts)
        bus.subscribe("_dlq.n", bury, blocking=False)
        await bus.publish_many([("n", number) for number in range(4)])
        assert (await bus.close()).drained
    assert got == [1, 3]
    assert letters == [(2, "3")]


async def test_a_failed_batch_fails_every_message_of_it_that_is_not_settled() -> None:
    attempts: list[tuple[int, int]] = []

    async def handler(messages: list[Message]) -> None:
        attempts.extend((message.payload, message.attempt) for message in messages)
        if messages[0].attempt == 1:
            await messages[0].ack()
            raise RuntimeError("once")

    async with MessageBus(retry=RetryPolicy(base=0)) as bus:
        bus.subscribe("n", handler, batch=3)
        await bus.publish_many([("n", number) for number in range(3)])
    assert sorted(attempts) == [(0, 1), (1, 1), (1, 2), (2, 1), (2, 2)]


async def test_unsubscribing_finishes_what_is_in_flight_and_queued() -> None:
    got: list[int] = []

    async def handler(number: int) -> None:
        await asyncio.sleep(0)
        got.append(number)

    async with MessageBus() as bus:
        subscription = bus.subscribe("n", handler)
        await bus.publish_many([("n", number) for number in range(5)])
        await subscription.unsubscribe()
        assert got == list(range(5))
        assert not subscription.active
        await subscription.unsubscribe()
        await bus.publish("n", 5)
        assert bus.metrics().channels["n"].unrouted == 1
        assert bus.metrics().acked == 5


async def test_unsubscribing_without_draining_gives_the_message_to_another_member() -> None:
    got: list[str] = []
    entered = asyncio.Event()

    async def stuck(message: Message) -> None:
        entered.set()
        await asyncio.Event().wait()

    async def other(message: Message) -> None:
        got.append(f"attempt {message.attempt}")

    async with MessageBus() as bus:
        leaving = bus.subscribe("n", stuck, group="g")
        await bus.publish("n", None)
        await entered.wait()
        bus.subscribe("n", other, group="g")
        await leaving.unsubscribe(drain=False)
    assert got == ["attempt 1"]


async def test_a_handler_may_unsubscribe_itself() -> None:
    got: list[int] = []

    async def once(number: int) -> None:
        got.append(number)
        await subscription.unsubscribe()

    async with MessageBus() as bus:
        subscription = bus.subscribe("n", once)
        await bus.publish("n", 1)
        while subscription.active:
            await asyncio.sleep(0)
        await bus.publish("n", 2)
    assert got == [1]


@pytest.mark.parametrize("pattern", ["", "a..b", "a.*b", ">.a", "a b", "x" * 256])
async def test_bad_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(InvalidChannelName):
        MessageBus().subscribe(pattern, print)


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"batch": -1}, {"timeout": 0}, {"capacity": 0}])
async def test_bad_numbers_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        MessageBus().subscribe("a", print, **options)  # type: ignore[call-overload]


async def test_group_and_broadcast_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="exclude"):
        MessageBus().subscribe("a", print, group="g", broadcast=True)
