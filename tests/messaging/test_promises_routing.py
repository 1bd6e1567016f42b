"""Who gets a message: broadcasts and groups, wildcards, filters, and what happens when nobody listens."""

from __future__ import annotations

import asyncio

import pytest

from neuralcore.messaging.errors import BadHandler, NoSubscribers, UnknownChannel
from neuralcore.messaging.retry import RetryPolicy
from neuralcore.testing import Recorder, idle, virtual, virtual_bus

BOTH = pytest.mark.parametrize("url", ["native://", "memory://"])


@virtual
async def test_nobody_listens_the_message_is_counted_as_unrouted_and_gone():
    async with virtual_bus() as bus:
        await bus.publish("nowhere", 1)
        assert bus.metrics().channels["nowhere"].unrouted == 1
        with pytest.raises(NoSubscribers) as caught:
            await bus.publish("nowhere", 1, mandatory=True)
        assert caught.value.channel == "nowhere"
        late = Recorder()
        bus.subscribe("nowhere", late.handle)
        await bus.publish("nowhere", 2, mandatory=True)
        await idle()
        assert late.payloads == [2]


@virtual
async def test_on_native_a_subscription_with_neither_is_a_broadcast():
    async with virtual_bus() as bus:
        first, second = Recorder(), Recorder()
        bus.subscribe("news", first.handle)
        bus.subscribe("news", second.handle)
        await bus.publish("news", 1)
        await idle()
        assert (first.payloads, second.payloads) == ([1], [1])


@virtual
async def test_on_other_transports_group_or_broadcast_must_be_said():
    async with virtual_bus("memory://") as bus:
        with pytest.raises(Exception, match=r"group.*broadcast|broadcast.*group"):
            bus.subscribe("news", Recorder().handle)


@BOTH
@virtual(seeds=3)
async def test_a_group_shares_and_every_group_gets_all(url):
    async with virtual_bus(url) as bus:
        members = {name: [Recorder(), Recorder()] for name in "ab"}
        for group, recorders in members.items():
            for recorder in recorders:
                await bus.subscribe("jobs.*", recorder.handle, group=group).ready()
        for n in range(20):
            await bus.publish(f"jobs.{n % 3}", n)
        await asyncio.sleep(60)
        for first, second in members.values():
            assert sorted(first.payloads + second.payloads) == list(range(20))


@virtual
async def test_on_native_a_group_ends_with_its_last_member():
    async with virtual_bus() as bus:
        got = Recorder()
        subscription = bus.subscribe("jobs", got.handle, group="g")
        await subscription.unsubscribe()
        await bus.publish("jobs", 1)
        assert bus.metrics().channels["jobs"].unrouted == 1
        bus.subscribe("jobs", got.handle, group="g")
        await bus.publish("jobs", 2)
        await idle()
        assert got.payloads == [2]


@BOTH
@virtual
async def test_members_of_one_group_on_one_pattern_must_agree(url):
    async with virtual_bus(url) as bus:
        bus.subscribe("jobs", Recorder().handle, group="g", capacity=10, overflow="block")
        for options in (
            {"capacity": 11},
            {"capacity": 10, "retry": RetryPolicy(max_attempts=9)},
            {"capacity": 10, "filter": lambda message: True},
        ):
            with pytest.raises(BadHandler, match=next(reversed(options))):
                bus.subscribe("jobs", Recorder().handle, group="g", **options)
        bus.subscribe("jobs", Recorder().handle, group="g", capacity=10)
        bus.subscribe("jobs", Recorder().handle, group="other", capacity=99)
        bus.subscribe("other", Recorder().handle, group="g", capacity=99)


@BOTH
@virtual
async def test_what_the_filter_refuses_is_acked(url):
    async with virtual_bus(url) as bus:
        got = Recorder()
        wanted = bus.subscribe("jobs", got.handle, group="g", filter=lambda message: message.payload % 2)
        await wanted.ready()
        for n in range(10):
            await bus.publish("jobs", n)
        await asyncio.sleep(60)
        assert got.payloads == [1, 3, 5, 7, 9]
        (stats,) = bus.metrics().subscriptions
        assert (stats.acked, stats.depth, stats.in_flight) == (10, 0, 0)


@BOTH
@virtual
async def test_leading_wildcards_never_match_reserved_tokens(url):
    async with virtual_bus(url) as bus:
        everything, one = Recorder(), Recorder()
        await bus.subscribe(">", everything.handle, group="all").ready()
        await bus.subscribe("*.jobs", one.handle, group="one").ready()

        def reject(message):
            from neuralcore.messaging.retry import Reject

            raise Reject("no")

        await bus.subscribe("jobs", Recorder(reject).handle, group="g").ready()
        await bus.publish("jobs", 1)
        await asyncio.sleep(60)
        assert [message.channel for message in everything.messages] == ["jobs"]
        assert one.messages == []


@BOTH
@virtual
async def test_of_one_groups_patterns_the_most_specific_one_gets_it(url):
    async with virtual_bus(url) as bus:
        wide, narrow, exact = Recorder(), Recorder(), Recorder()
        for pattern, recorder in ((">", wide), ("a.*", narrow), ("a.b", exact)):
            await bus.subscribe(pattern, recorder.handle, group="g").ready()
        for channel in ("a.b", "a.c", "z"):
            await bus.publish(channel, channel)
        await asyncio.sleep(60)
        assert (exact.payloads, narrow.payloads, wide.payloads) == (["a.b"], ["a.c"], ["z"])


@virtual
async def test_unknown_channels_are_errors_with_near_misses_where_they_are_not_created():
    async with virtual_bus(auto_create=False) as bus:
        bus.create_channel("memory.write")
        with pytest.raises(UnknownChannel) as caught:
            await bus.publish("memory.wrote", 1)
        assert caught.value.near == ("memory.write",)
        got = Recorder()
        bus.subscribe("memory.write", got.handle)
        await bus.publish("memory.write", 1)
        await idle()
        assert got.payloads == [1]


@virtual(seeds=3)
async def test_subscribing_and_leaving_in_mid_stream_loses_and_repeats_nothing():
    async with virtual_bus() as bus:
        everyone = Recorder(lambda message: asyncio.sleep(0.001))
        bus.subscribe("jobs", everyone.handle, group="g")

        async def come_and_go():
            for _ in range(20):
                subscription = bus.subscribe("jobs", everyone.handle, group="g", concurrency=2)
                await asyncio.sleep(0.01)
                await subscription.unsubscribe()

        coming = asyncio.create_task(come_and_go())
        for n in range(500):
            await bus.publish("jobs", n)
            await asyncio.sleep(0.0005)
        await coming
        await asyncio.sleep(10)
        assert sorted(everyone.payloads) == list(range(500))
