"""Publishing: what it answers, what it refuses, and from where it may be called."""

from __future__ import annotations

import asyncio
import threading

import pytest

from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.errors import (
    ChannelFull,
    Closed,
    InvalidChannelName,
    LoopClosed,
    NotStarted,
    PayloadTooLarge,
    PriorityOutOfRange,
    PublishManyFailed,
    Unsupported,
)
from neuralcore.testing import Recorder, idle, virtual, virtual_bus


@virtual
async def test_publish_answers_the_id_the_handler_sees():
    async with virtual_bus() as bus:
        got = Recorder()
        bus.subscribe("jobs", got.handle)
        ids = [await bus.publish("jobs", n) for n in range(5)]
        await got.wait(5)
        assert [message.id for message in got.messages] == ids
        assert len(set(ids)) == 5
        assert len({id[:16] for id in ids}) == 1
        assert all(len(id) == 32 and int(id, 16) >= 0 for id in ids)
    async with virtual_bus() as other:
        assert (await other.publish("jobs", 1))[:16] != ids[0][:16]


@virtual
async def test_the_awaitable_of_a_publish_with_room_is_done_already():
    async with virtual_bus() as bus:
        bus.subscribe("jobs", Recorder().handle)

        async def publish():
            return await bus.publish("jobs", 1)

        with pytest.raises(StopIteration) as stop:
            publish().send(None)
        assert isinstance(stop.value.value, str)


@virtual
async def test_a_producer_that_never_waits_does_not_starve_the_loop():
    async with virtual_bus() as bus:
        bus.subscribe("jobs", Recorder().handle, capacity=100_000)
        turns = 0

        async def spin():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        spinning = asyncio.create_task(spin())
        for n in range(3000):
            await bus.publish("jobs", n)
        assert turns >= 5
        spinning.cancel()


@virtual
async def test_publish_many_answers_one_result_an_item_in_order():
    async with virtual_bus() as bus:
        got = Recorder()
        bus.subscribe("jobs", got.handle)
        items = [("jobs", 1), ("jobs", 2, 10), ("jobs", 3, None, {"headers": {"a": "b"}, "key": "k"})]
        ids = await bus.publish_many(items)
        await got.wait(3)
        by_payload = {message.payload: message for message in got.messages}
        assert [by_payload[n].id for n in (1, 2, 3)] == list(ids)
        assert by_payload[2].priority == 10
        assert (dict(by_payload[3].headers), by_payload[3].key) == ({"a": "b"}, "k")


@virtual
async def test_publish_many_goes_on_behind_an_item_that_fails():
    async with virtual_bus() as bus:
        got = Recorder()
        bus.subscribe("jobs", got.handle)
        with pytest.raises(PublishManyFailed) as caught:
            await bus.publish_many([("jobs", 1), ("bad..name", 2), ("jobs", 3), ("jobs", 4, 999)])
        await idle()
        assert got.payloads == [1, 3]
        assert [result is None for result in caught.value.results] == [False, True, False, True]
        kinds = {index: type(error) for index, error in caught.value.errors.items()}
        assert kinds == {1: InvalidChannelName, 3: PriorityOutOfRange}


@virtual
async def test_publish_many_waits_for_room():
    async with virtual_bus() as bus:
        got = Recorder(lambda message: asyncio.sleep(0.01))
        bus.subscribe("jobs", got.handle, capacity=3)
        await bus.publish_many([("jobs", n) for n in range(50)])
        await got.wait(50)
        assert got.payloads == list(range(50))


@pytest.mark.parametrize("name", ["", "a..b", ".a", "a.", "a b", "a.*", ">", "x" * 2000, "a.\n"])
@virtual
async def test_invalid_names_are_refused(name):
    async with virtual_bus() as bus:
        with pytest.raises(InvalidChannelName) as caught:
            await bus.publish(name, 1)
        assert caught.value.reason
        with pytest.raises(InvalidChannelName):
            bus.publish_nowait(name, 1)


@pytest.mark.parametrize("priority", [-1, 256, 1 << 40])
@virtual
async def test_priorities_out_of_range_are_refused(priority):
    async with virtual_bus() as bus:
        bus.subscribe("jobs", Recorder().handle)
        with pytest.raises(PriorityOutOfRange) as caught:
            await bus.publish("jobs", 1, priority=priority)
        assert caught.value.priority == priority


@virtual
async def test_payload_limits():
    async with virtual_bus() as bus:
        bus.create_channel("jobs", max_payload=10)
        got = Recorder()
        bus.subscribe("jobs", got.handle)
        await bus.publish("jobs", b"x" * 10)
        with pytest.raises(PayloadTooLarge) as caught:
            await bus.publish("jobs", b"x" * 11)
        assert (caught.value.channel, caught.value.size, caught.value.limit) == ("jobs", 11, 10)
        await idle()
        assert len(got.messages) == 1


@virtual
async def test_rate_limits():
    from neuralcore.messaging.channel import RateLimit

    async with virtual_bus() as bus:
        bus.create_channel("jobs", rate_limit=RateLimit(rate=10.0, burst=5.0))
        got = Recorder()
        bus.subscribe("jobs", got.handle)
        for n in range(25):
            await bus.publish("jobs", n)
        await got.wait(25)
        assert round(got.times[-1] - got.times[0], 3) == 2.0
        with pytest.raises(ChannelFull):
            bus.publish_nowait("jobs", "over the limit")


def test_before_start_and_after_close():
    async def main():
        bus = MessageBus()
        for call in (bus.publish, bus.publish_nowait):
            with pytest.raises(NotStarted):
                await call("jobs", 1)
        with pytest.raises(NotStarted):
            bus.publish_threadsafe("jobs", 1)
        await bus.start()
        await bus.close()
        for call in (bus.publish, bus.publish_nowait, bus.publish_threadsafe):
            with pytest.raises(Closed):
                await call("jobs", 1)
        with pytest.raises(Closed):
            await bus.publish_many([("jobs", 1)])
        with pytest.raises(Closed):
            bus.subscribe("jobs", Recorder().handle)
        with pytest.raises(Closed):
            await bus.start()

    asyncio.run(main())


def test_stamps_never_go_back():
    async def main():
        async with MessageBus() as bus:
            got = Recorder()
            bus.subscribe("jobs", got.handle)
            for n in range(3000):
                await bus.publish("jobs", n)
            await asyncio.wait_for(got.wait(3000), 20)
            stamps = [message.timestamp_ns for message in got.messages]
            assert stamps == sorted(stamps)

    asyncio.run(main())


def test_publish_nowait_from_any_thread():
    async def main():
        async with MessageBus() as bus:
            got = Recorder()
            bus.subscribe("jobs", got.handle, capacity=10_000)

            def produce(number):
                for n in range(500):
                    assert bus.publish_nowait("jobs", (number, n)) is not None

            threads = [threading.Thread(target=produce, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            await asyncio.wait_for(got.wait(2000), 20)
            for thread in threads:
                thread.join()
            assert len(set(got.payloads)) == len(got.payloads) == 2000
            for number in range(4):
                mine = [n for who, n in got.payloads if who == number]
                assert mine == list(range(500))

    asyncio.run(main())


def test_publish_threadsafe_from_a_plain_thread():
    async def main():
        async with MessageBus() as bus:
            got, answers = Recorder(), []
            bus.subscribe("jobs", got.handle, capacity=1)

            def produce():
                answers.extend(bus.publish_threadsafe("jobs", n, priority=3).result(timeout=20) for n in range(20))

            await asyncio.wait_for(asyncio.to_thread(produce), 20)
            await asyncio.wait_for(got.wait(20), 20)
            assert [message.id for message in got.messages] == answers
            assert {message.priority for message in got.messages} == {3}

    asyncio.run(main())


def test_publish_from_another_loop_waits_for_room_there():
    async def main():
        gate = asyncio.Event()
        async with MessageBus() as bus:
            got = Recorder(lambda message: gate.wait())
            bus.subscribe("jobs", got.handle, capacity=1)

            async def elsewhere():
                return [await bus.publish("jobs", n) for n in range(5)]

            other = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(elsewhere())))
            await asyncio.wait_for(got.wait(1), 20)
            gate.set()
            assert len(set(await asyncio.wait_for(other, 20))) == 5
            await asyncio.wait_for(got.wait(5), 20)
            assert got.payloads == list(range(5))

    asyncio.run(main())


def test_subscribers_on_several_loops_share_one_bus():
    async def main():
        async with MessageBus() as bus:
            here, there, done = Recorder(), [], threading.Event()
            bus.subscribe("jobs", here.handle)
            subscribed = threading.Event()

            async def elsewhere():
                finished = asyncio.Event()

                async def handle(message):
                    there.append((message.payload, threading.get_ident()))
                    if len(there) == 50:
                        finished.set()

                subscription = bus.subscribe("jobs", handle)
                subscribed.set()
                await asyncio.wait_for(finished.wait(), 20)
                await subscription.unsubscribe()
                done.set()
                return threading.get_ident()

            other = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(elsewhere())))
            await asyncio.to_thread(subscribed.wait, 20)
            for n in range(50):
                await bus.publish("jobs", n)
            thread = await asyncio.wait_for(other, 20)
            await asyncio.wait_for(here.wait(50), 20)
            assert [payload for payload, _ in there] == list(range(50)) == here.payloads
            assert {ident for _, ident in there} == {thread}

    asyncio.run(main())


def test_a_bus_whose_loop_is_closed_says_so():
    bus = MessageBus()
    asyncio.run(bus.start())
    with pytest.raises(LoopClosed):
        bus.publish_threadsafe("jobs", 1)
    with pytest.raises(LoopClosed):
        asyncio.run(bus.close())


@virtual
async def test_publish_nowait_is_for_native_only():
    async with virtual_bus("memory://") as bus:
        with pytest.raises(Unsupported):
            bus.publish_nowait("jobs", 1)


@virtual
async def test_publish_threadsafe_works_on_every_transport():
    async with virtual_bus("memory://") as bus:
        got = Recorder()
        await bus.subscribe("jobs", got.handle, group="g").ready()
        answer = bus.publish_threadsafe("jobs", 1)
        await got.wait(1)
        assert answer.result(timeout=0) == got.messages[0].id
