"""Channels, their configuration and their guards, middleware, metrics."""

import asyncio
from typing import Any

import numpy as np
import pytest

from neuralcore._core import Message
from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.channel import ChannelConfig, RateLimit, Retention
from neuralcore.messaging.codec import Codec
from neuralcore.messaging.errors import (
    ChannelFull,
    Closed,
    EncodeError,
    InvalidChannelName,
    PayloadTooLarge,
    PriorityOutOfRange,
    PublishManyFailed,
    UnknownChannel,
    Unsupported,
)
from neuralcore.messaging.middleware import BatchHandle, Handle, Middleware, Publication, Publish
from neuralcore.messaging.retry import RetryPolicy
from neuralcore.testing import virtual


async def test_channels_come_into_being_by_use_unless_that_is_switched_off() -> None:
    async with MessageBus() as bus:
        await bus.publish("a", 1)
        assert set(bus.channels()) == {"a"}
    async with MessageBus(auto_create=False) as bus:
        bus.create_channel("memory.write")
        await bus.publish("memory.write", 1)
        with pytest.raises(UnknownChannel, match=r"did you mean 'memory\.write'"):
            await bus.publish("memory.wrote", 1)


async def test_without_auto_create_a_mistyped_channel_is_found_wherever_it_is_used() -> None:
    async with MessageBus(auto_create=False) as bus:
        bus.create_channel("orders")
        for use in (
            lambda: bus.subscribe("order", print),
            lambda: bus.stream("order"),
            lambda: bus.queue_size("order"),
            lambda: bus.subscribe("orders", print, dead_letter="order"),
            lambda: bus.stream("orders", dead_letter="order"),
        ):
            with pytest.raises(UnknownChannel, match="did you mean 'orders'"):
                use()
        assert not bus._subscriptions
        assert bus.queue_size("orders") == 0
        bus.subscribe("orders", print)
        for later in ("order.*", "_dlq.orders"):
            bus.subscribe(later, print)
            await bus.stream(later).close()


async def test_without_auto_create_what_is_subscribed_to_has_to_be_created_until_the_start() -> None:
    bus = MessageBus(auto_create=False)
    bus.subscribe("orders", print)
    bus.create_channel("orders")
    await bus.start()
    await bus.close()

    bus = MessageBus(auto_create=False)
    bus.subscribe("orders", print)
    with pytest.raises(UnknownChannel, match="orders"):
        await bus.start()
    with pytest.raises(Closed):
        await bus.publish("orders", 1)


@pytest.mark.parametrize("name", ["", "a..b", "a.*", "a.>", "a b", 3])
async def test_the_queue_of_a_bad_name_has_no_size(name: Any) -> None:
    async with MessageBus() as bus:
        assert bus.queue_size("nobody.uses.it") == 0
        with pytest.raises(InvalidChannelName):
            bus.queue_size(name)


@pytest.mark.parametrize("name", ["", "a..b", "a.*", "a.>", "x" * 256, "_dlq.a", 3])
async def test_bad_names_are_refused(name: Any) -> None:
    async with MessageBus() as bus:
        with pytest.raises(InvalidChannelName):
            await bus.publish(name, 1)


async def test_the_buss_own_channels_are_never_anyone_elses_to_publish_to() -> None:
    letters: list[Any] = []

    class Redirect(Middleware):
        async def publish(self, publication: Publication, proceed: Publish) -> str | None:
            return await proceed(publication.replace(channel="_dlq.a"))

    async with MessageBus() as bus:
        bus.subscribe("_dlq.a", lambda letter: letters.append(letter.payload), blocking=False)
        bus.subscribe("_dlq.*", lambda letter: letters.append(letter.payload), blocking=False)
        bus.subscribe("*.a", lambda letter: letters.append("not for a leading wildcard"), blocking=False)
        async with bus.stream("a") as stream:
            for number in range(2):
                await bus.publish("a", number)
                await (await anext(stream)).reject()
                with pytest.raises(InvalidChannelName, match="the bus's own"):
                    await bus.publish("_dlq.a", 1)
                with pytest.raises(InvalidChannelName):
                    bus.publish_nowait("_dlq.a", 1)
                with pytest.raises(PublishManyFailed):
                    await bus.publish_many([("_dlq.a", 1)])
                with pytest.raises(InvalidChannelName):
                    await bus.request("_dlq.a", 1)
        async with bus.stream("_dlq.>") as late, bus.stream("b") as stream:
            for channel in ("b", "b"):
                await bus.publish(channel, 5)
                await (await anext(stream)).reject()
                await (await anext(late)).ack()
        bus.use(Redirect())
        with pytest.raises(InvalidChannelName):
            await bus.publish("a", 1)
        assert (await bus.close()).drained
        assert bus.metrics().channels["_dlq.a"].published == 2
        assert set(bus.channels()) == {"a", "b", "_dlq.a", "_dlq.b"}
    assert sorted(letters) == [0, 0, 1, 1, 5, 5]


@pytest.mark.parametrize("priority", [-1, 256, 1 << 40])
async def test_priorities_out_of_range_are_refused(priority: int) -> None:
    async with MessageBus() as bus:
        with pytest.raises(PriorityOutOfRange, match=r"0 .*255"):
            await bus.publish("a", 1, priority=priority)


async def test_a_channels_configuration_is_its_publishers_default() -> None:
    async with MessageBus() as bus:
        bus.create_channel("a", priority=7, capacity=1, overflow="reject")
        async with bus.stream("a") as stream:
            await bus.publish("a", 1)
            with pytest.raises(ChannelFull):
                await bus.publish("a", 2)
            message = await anext(stream)
            assert message.priority == 7
            await message.ack()


async def test_a_channel_changes_live() -> None:
    async with MessageBus() as bus, bus.stream("a") as stream:
        await bus.publish("a", 1)
        bus.create_channel("a", priority=0)
        await bus.publish("a", 2)
        assert [(await anext(stream)).payload, (await anext(stream)).payload] == [2, 1]


async def test_payloads_above_the_limit_are_refused_by_every_way_of_publishing() -> None:
    async with MessageBus() as bus:
        bus.create_channel("a", max_payload=3)
        with pytest.raises(PayloadTooLarge) as caught:
            await bus.publish("a", b"four")
        assert (caught.value.size, caught.value.limit) == (4, 3)
        with pytest.raises(PayloadTooLarge):
            bus.publish_nowait("a", "äö")
        with pytest.raises(PublishManyFailed) as many:
            await bus.publish_many([("a", b"ok"), ("a", b"four"), ("b", b"anything")])
        assert list(many.value.errors) == [1]
        assert [id is not None for id in many.value.results] == [True, False, True]


@pytest.mark.parametrize("payload", [{"k": "x" * 100}, ["x" * 100], np.zeros(100)], ids=["dict", "list", "array"])
async def test_the_limit_is_on_the_encoded_size_of_whatever_is_published(payload: Any) -> None:
    _, body = Codec().encode(payload)
    async with MessageBus() as bus:
        bus.create_channel("a", max_payload=10)
        with pytest.raises(PayloadTooLarge) as caught:
            await bus.publish("a", payload)
        assert caught.value.size == len(body)
        with pytest.raises(PayloadTooLarge):
            bus.publish_nowait("a", payload)
        with pytest.raises(PublishManyFailed):
            await bus.publish_many([("a", payload)])
        bus.create_channel("a", max_payload=len(body))
        assert await bus.publish("a", payload)


async def test_only_a_channel_with_a_limit_encodes() -> None:
    async with MessageBus() as bus:
        bus.create_channel("a", max_payload=10)
        with pytest.raises(EncodeError, match="object"):
            await bus.publish("a", object())
        assert await bus.publish("b", object())
        with pytest.raises(PayloadTooLarge):
            await bus.publish("a", ["x"] * 4, content_type="application/json")
        assert await bus.publish("a", ["x"] * 4)


@virtual
async def test_a_rate_limit_holds_publishers_back() -> None:
    loop = asyncio.get_running_loop()
    async with MessageBus(clock=loop.clock) as bus:  # type: ignore[attr-defined]
        bus.create_channel("a", rate_limit=RateLimit(10, 5))
        before = loop.time()
        for number in range(15):
            await bus.publish("a", number)
        assert loop.time() - before == pytest.approx(1.0)
        with pytest.raises(ChannelFull):
            bus.publish_nowait("a", 16)


async def test_isolated_payloads_are_copied_for_everyone() -> None:
    got: list[list[int]] = []

    async def change(payload: list[int]) -> None:
        payload.append(99)
        got.append(payload)

    async with MessageBus() as bus:
        bus.subscribe("a", change)
        bus.create_channel("a", isolate=True)
        bus.subscribe("a", change)
        mine = [1]
        await bus.publish("a", mine)
        mine.append(2)
    assert got == [[1, 99], [1, 99]]
    assert mine == [1, 2]


@pytest.mark.parametrize("batch", [0, 5])
@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("how", ["raise", "nack", "release"])
async def test_what_a_failed_attempt_did_to_an_isolated_payload_is_forgotten(
    how: str, blocking: bool, batch: int
) -> None:
    seen: list[list[int]] = []
    letters: list[list[int]] = []

    def attempt(message: Message) -> Any:
        seen.append(list(message.payload))
        message.payload.append(len(seen))
        if how == "raise" or len(seen) > 2:
            raise ValueError
        return message.nack(0) if how == "nack" else message.release()

    def one(message: Message) -> Any:
        return attempt(message)

    def many(messages: list[Message]) -> Any:
        return attempt(messages[0])

    async with MessageBus(retry=RetryPolicy(max_attempts=3, base=0)) as bus:
        bus.create_channel("a", isolate=True)
        bus.subscribe("a", many if batch else one, batch=batch, blocking=blocking)
        bus.subscribe("_dlq.a", lambda letter: letters.append(letter.payload), blocking=False)
        await bus.publish("a", [0])
        assert (await bus.close()).drained
    assert seen == [[0]] * (5 if how == "release" else 3)
    assert letters == [[0]]


async def test_a_worker_that_is_cancelled_leaves_an_isolated_payload_as_it_was() -> None:
    got: list[list[int]] = []
    entered = asyncio.Event()

    async def stuck(payload: list[int]) -> None:
        payload.append(1)
        entered.set()
        await asyncio.Event().wait()

    async with MessageBus() as bus:
        bus.create_channel("a", isolate=True)
        leaving = bus.subscribe("a", stuck, group="g")
        await bus.publish("a", [0])
        await entered.wait()
        bus.subscribe("a", lambda message: got.append(message.payload), group="g", blocking=False)
        await leaving.unsubscribe(drain=False)
    assert got == [[0]]


async def test_streams_on_isolated_channels_have_copies_too() -> None:
    async with MessageBus() as bus, bus.stream("a") as first, bus.stream("a") as second:
        bus.create_channel("a", isolate=True)
        await bus.publish("a", [0])
        mine, theirs = await anext(first), await anext(second)
        mine.payload.append(1)
        assert theirs.payload == [0]
        await theirs.ack()
        assert theirs.payload is not mine.payload
        await mine.nack(0)
        again = await anext(first)
        assert again.payload == [0]
        again.payload.append(2)
        await again.release()
        assert (await anext(first)).payload == [0]


async def test_isolation_ends_when_the_channel_says_so() -> None:
    got: list[list[int]] = []
    async with MessageBus() as bus, bus.stream("a") as stream:
        bus.create_channel("a", isolate=True)
        bus.subscribe("a", lambda message: got.append(message.payload), blocking=False)
        bus.create_channel("a", isolate=False)
        mine = [0]
        await bus.publish("a", mine)
        message = await anext(stream)
        assert message.payload is mine
        await message.ack()
    assert got[0] is mine


async def test_what_a_channel_needs_and_native_lacks_is_an_error() -> None:
    async with MessageBus() as bus:
        with pytest.raises(Unsupported, match="retention"):
            bus.create_channel("a", retention=Retention(count=5))
        with pytest.raises(Unsupported, match="start"):
            bus.subscribe("a", print, start="beginning")


async def test_a_configuration_object_and_fields_exclude_each_other() -> None:
    bus = MessageBus()
    assert bus.create_channel(ChannelConfig("a", ttl=5)).ttl == 5
    with pytest.raises(TypeError):
        bus.create_channel(ChannelConfig("a"), ttl=5)


class Recorder(Middleware):
    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    async def publish(self, publication: Publication, proceed: Publish) -> str | None:
        self.log.append(f"{self.name} publishes {publication.payload}")
        return await proceed(publication.with_headers(by=self.name))

    async def handle(self, message: Message, proceed: Handle) -> Any:
        self.log.append(f"{self.name} handles {message.payload}")
        return await proceed(message)


async def test_middleware_wraps_publishing_and_handling_live_and_in_order() -> None:
    log: list[str] = []

    async def handler(message: Message) -> str:
        log.append(f"handler by {message.headers.get('by')}")
        return "answer"

    async with MessageBus() as bus:
        bus.subscribe("a", handler)
        assert await bus.request("a", 0) == "answer"
        bus.use(Recorder("outer", log))
        bus.use(Recorder("inner", log))
        assert await bus.request("a", 1) == "answer"
        with pytest.raises(Unsupported):
            bus.publish_nowait("a", 2)
    assert log == [
        "handler by None",
        "outer publishes 1",
        "inner publishes 1",
        "outer handles 1",
        "inner handles 1",
        "handler by inner",
    ]


class Dropper(Middleware):
    async def publish(self, publication: Publication, proceed: Publish) -> str | None:
        return None if publication.payload == "unwanted" else await proceed(publication)


async def test_middleware_may_drop() -> None:
    async with MessageBus() as bus:
        bus.use(Dropper())
        assert await bus.publish("a", "unwanted") is None
        assert await bus.publish_many([("a", "unwanted"), ("a", "wanted")]) != [None, None]


class Named(Middleware):
    """With parameters of other names than the base class has."""

    async def publish(self, what: Publication, following: Publish) -> str | None:
        return await following(what.replace(payload=what.payload + 1))

    async def handle(self, what: Message, call_next: Handle) -> Any:
        return await call_next(what)

    async def handle_batch(self, these: list[Message], then: BatchHandle) -> Any:
        return await then(these)


@pytest.mark.parametrize("batch", [0, 2])
async def test_middleware_names_its_parameters_as_it_likes(batch: int) -> None:
    got: list[Any] = []

    async def one(message: Message) -> None:
        got.append(message.payload)

    async def many(messages: list[Message]) -> None:
        got.extend(message.payload for message in messages)

    async with MessageBus(retry=RetryPolicy(max_attempts=1)) as bus:
        bus.use(Named())
        bus.subscribe("a", many if batch else one, batch=batch)
        await bus.publish("a", 1)
    assert got == [2]


@pytest.mark.parametrize("wrong", ["x", None, 5, Named], ids=str)
def test_what_is_no_middleware_is_refused(wrong: Any) -> None:
    bus = MessageBus()
    with pytest.raises(TypeError, match=r"Named\(\)" if wrong is Named else repr(wrong)):
        bus.use(wrong)


async def test_a_closed_bus_is_not_configured_any_more() -> None:
    async with MessageBus() as bus:
        pass
    with pytest.raises(Closed):
        bus.create_channel("a")
    with pytest.raises(Closed):
        bus.use(Named())


async def test_metrics_are_a_picture_that_stays() -> None:
    async def handler(number: int) -> None:
        if number == 3:
            raise ValueError

    async with MessageBus() as bus:
        bus.subscribe("a", handler, name="worker", dead_letter=False, retry=RetryPolicy(base=0))
        before = bus.metrics()
        await bus.publish_many([("a", number) for number in range(4)])
        await bus.publish("nobody", 1)
        assert bus.queue_size("a") == 4
        assert bus.metrics().depth_by_priority == {50: 4}
        await bus.close()
        after = bus.metrics()
    assert before.published == 0
    assert after.published == 4
    assert after.unrouted == 1
    assert after.acked == 4
    assert after.retried == 4
    assert after.delivered == 8
    assert after.in_flight == after.depth == 0
    assert after.transport["discarded"] == 1
    assert after.to_dict()["totals"]["acked"] == 4


async def test_an_idempotency_key_is_refused_by_name_where_nothing_remembers_it() -> None:
    async with MessageBus() as bus:
        with pytest.raises(Unsupported, match="dedup"):
            await bus.publish("a", 1, idempotency_key="once")
        with pytest.raises(Unsupported, match="dedup"):
            bus.publish_nowait("a", 1, idempotency_key="once")
        assert bus.metrics().channels["a"].refused == 2


class Rerouter(Middleware):
    async def publish(self, publication: Publication, proceed: Publish) -> str | None:
        return await proceed(publication.replace(channel="elsewhere"))


async def test_middleware_may_send_a_message_to_another_channel() -> None:
    async with MessageBus() as bus, bus.stream("elsewhere") as stream:
        bus.use(Rerouter())
        await bus.publish("here", 1)
        message = await anext(stream)
        assert message.channel == "elsewhere"
        await message.ack()


async def test_a_publisher_that_waits_while_the_bus_closes_is_refused() -> None:
    async with MessageBus(capacity=1) as bus:
        stream = bus.stream("a")
        await bus.publish("a", 1)
        waiting = asyncio.ensure_future(bus.publish("a", 2))
        await asyncio.sleep(0)
        await bus.close(drain=False)
        with pytest.raises(Closed):
            await waiting
        await stream.close()


async def test_a_live_change_never_runs_more_handlers_at_once_than_before() -> None:
    running, most = 0, 0
    entered, leave = asyncio.Event(), asyncio.Event()

    async def handler(number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        entered.set()
        await leave.wait()
        running -= 1

    log: list[str] = []
    async with MessageBus() as bus:
        bus.subscribe("a", handler)
        await bus.publish("a", 1)
        await entered.wait()
        bus.use(Recorder("new", log))
        await bus.publish("a", 2)
        for _ in range(10):
            await asyncio.sleep(0)
        assert running == 1
        leave.set()
        await bus.close()
    assert most == 1
    assert log == ["new publishes 2", "new handles 2"]
