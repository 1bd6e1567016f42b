"""A capability that is needed and missing is an error, with the names of the transports that have it."""

import dataclasses
from datetime import datetime, timezone

import pytest

from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.channel import Retention
from neuralcore.messaging.errors import (
    ChannelConflict,
    InvalidChannelName,
    PayloadTooLarge,
    PriorityOutOfRange,
    UnknownChannel,
    Unsupported,
)
from neuralcore.messaging.transport import Capabilities
from neuralcore.testing import virtual
from neuralcore.testing.memory import MemoryStore, MemoryTransport


class Bare(MemoryTransport):
    capabilities = Capabilities()


def with_all_but(**lacking):
    class Lacking(MemoryTransport):
        capabilities = dataclasses.replace(MemoryTransport.capabilities, **lacking)

    return Lacking(MemoryStore())


def handler(message):
    """Never called."""


@pytest.mark.parametrize(
    ("lacking", "options"),
    [
        ("groups", {"group": "g"}),
        ("broadcast", {"broadcast": True}),
        ("seek_id", {"group": "g", "start": "an id"}),
        ("seek_time", {"group": "g", "start": datetime.now(timezone.utc)}),
    ],
)
def test_a_subscription_that_needs_more_is_refused_at_once(lacking, options):
    bus = MessageBus(with_all_but(**{lacking: False}))
    with pytest.raises(Unsupported, match=f"{lacking}.*transports that have it: .*memory"):
        bus.subscribe("jobs", handler, **options)


def test_neither_group_nor_broadcast_is_refused_with_the_reason():
    bus = MessageBus(MemoryTransport())
    with pytest.raises(Unsupported, match="say whether"):
        bus.subscribe("jobs", handler)


@pytest.mark.parametrize("start", ["new", "beginning", None])
def test_these_starts_need_nothing_special(start):
    MessageBus(with_all_but(seek_id=False, seek_time=False)).subscribe("jobs", handler, group="g", start=start)


@pytest.mark.parametrize(
    ("lacking", "fields"),
    [
        ({"retention": False}, {"retention": Retention(count=1)}),
        ({"dedup": "none"}, {"dedup_window": 1.0}),
        ({"bounded": False}, {"capacity": 1}),
        ({"bounded": False}, {"overflow": "reject"}),
        ({"priorities": False}, {"priority": 0}),
    ],
)
def test_a_channel_that_needs_more_is_refused_at_once(lacking, fields):
    bus = MessageBus(with_all_but(**lacking))
    with pytest.raises(Unsupported, match=next(iter(lacking))):
        bus.create_channel("jobs", **fields)


@virtual
@pytest.mark.parametrize(
    ("lacking", "options"),
    [
        ({"keys": False}, {"key": "k"}),
        ({"delay": False}, {"delay": 1.0}),
        ({"delay": False}, {"not_before": 2e9}),
        ({"dedup": "none"}, {"idempotency_key": "k"}),
        ({"priorities": False}, {"priority": 1}),
        ({"in_process": False}, {"mandatory": True}),
    ],
)
async def test_a_publish_that_needs_more_is_refused(town, lacking, options):
    bus = await town.bus(with_all_but(**lacking))
    with pytest.raises(Unsupported, match=next(iter(lacking))):
        await bus.publish("jobs", 1, **options)
    await town.close()


@virtual
async def test_publishing_without_waiting_is_for_mailboxes(town):
    bus = await town.bus()
    with pytest.raises(Unsupported, match="publish_threadsafe"):
        bus.publish_nowait("jobs", 1)
    await town.close()


@virtual
async def test_wrong_publishes_are_refused_before_the_transport_sees_them(town):
    class Small(MemoryTransport):
        capabilities = dataclasses.replace(MemoryTransport.capabilities, max_payload=100)

    bus = await town.bus(Small(town.store))
    bus.create_channel("smaller", max_payload=10)
    for channel, payload, options, error in (
        ("a..b", 1, {}, InvalidChannelName),
        ("_dlq.jobs", 1, {}, InvalidChannelName),
        ("a.*", 1, {}, InvalidChannelName),
        ("jobs", 1, {"priority": 256}, PriorityOutOfRange),
        ("jobs", bytes(101), {}, PayloadTooLarge),
        ("smaller", bytes(11), {}, PayloadTooLarge),
        ("smaller", {"a": "long enough"}, {}, PayloadTooLarge),
        ("jobs", 1, {"delay": float("inf")}, ValueError),
        ("jobs", 1, {"ttl": float("nan")}, ValueError),
    ):
        with pytest.raises(error):
            await bus.publish(channel, payload, **options)
    assert bus.metrics().channels["smaller"].refused == 2
    await town.close()


@virtual
async def test_without_auto_create_a_channel_must_be_known_here_or_to_the_transport(town):
    other = await town.bus()
    await other.publish("jobs.there", 1)
    bus = await town.bus(auto_create=False)
    bus.create_channel("jobs.here")
    await bus.publish("jobs.here", 1)
    await bus.publish("jobs.there", 1)
    with pytest.raises(UnknownChannel) as unknown:
        await bus.publish("jobs.her", 1)
    assert "jobs.here" in unknown.value.near
    await other.publish("jobs.new", 1)
    await town.loop.idle()
    await bus.publish("jobs.new", 1)
    assert {"jobs.here", "jobs.new", "jobs.there"} <= set(bus.channels())
    await town.close()


@virtual
async def test_a_channels_configuration_takes_effect_before_its_next_message(town):
    bus = await town.bus()
    bus.create_channel("jobs", capacity=1, overflow="drop_new", priority=7, ttl=60)
    assert await bus.publish("jobs", 1) is not None
    assert await bus.publish("jobs", 2) is None
    bus.create_channel("jobs", capacity=2, overflow="drop_new")
    assert await bus.publish("jobs", 3) is not None
    first, second = town.browse("jobs")
    assert (first.priority, second.priority) == (7, 50)
    assert first.expires_at_ns == first.timestamp_ns + 60 * 10**9
    assert second.expires_at_ns is None
    assert bus.metrics().channels["jobs"].dropped == 1
    await town.close()


@virtual
async def test_what_the_transport_has_against_a_configuration_reaches_its_publishers(town):
    class Strict(MemoryTransport):
        async def declare(self, channel):
            if channel.capacity is not None:
                raise ChannelConflict(channel.name, ["it cannot be bounded"])
            await super().declare(channel)

    bus = await town.bus(Strict(town.store))
    bus.create_channel("jobs", capacity=1)
    with pytest.raises(ChannelConflict, match="cannot be bounded"):
        await bus.publish("jobs", 1)
    await bus.publish("other", 1)
    bus.create_channel("jobs")
    await bus.publish("jobs", 1)
    await town.close()


@virtual
async def test_rate_limits_hold_publishers_back(town):
    from neuralcore.messaging.channel import RateLimit

    bus = await town.bus()
    bus.create_channel("slow", rate_limit=RateLimit(rate=2, burst=1))
    before = town.loop.time()
    for number in range(5):
        await bus.publish("slow", number)
    assert town.loop.time() - before == pytest.approx(2, abs=0.01)
    await town.close()


@virtual
async def test_middleware_goes_around_publishes_and_handlers(town):
    from neuralcore.messaging.middleware import Middleware

    class Stamp(Middleware):
        async def publish(self, publication, proceed):
            return await proceed(publication.with_headers(stamp=str(publication.payload)))

        async def handle(self, message, proceed):
            seen.append(("before", message.payload))
            return await proceed(message)

    bus, seen = await town.bus(), []
    bus.use(Stamp())
    await bus.subscribe("jobs", lambda m: seen.append(m.headers["stamp"]), group="g", blocking=False).ready()
    await bus.publish("jobs", 1)
    await bus.publish_many([("jobs", 2), ("jobs", 3)])
    await town.eventually(lambda: len(seen) == 6)
    assert seen == [("before", 1), "1", ("before", 2), "2", ("before", 3), "3"]
    await town.close()
