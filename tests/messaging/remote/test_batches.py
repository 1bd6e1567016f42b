"""publish_many: what becomes of a batch whose items do not all go the same way."""

import asyncio

import pytest

from neuralcore import ChannelFull, MessageBus, RateLimit
from neuralcore.messaging.errors import LoopClosed, NotStored, PublishManyFailed, PublishUnknown, TransportError
from neuralcore.messaging.transport import CommitResult, PublishStatus
from neuralcore.testing import virtual


def bodies(town, channel="jobs"):
    return [envelope.body for envelope in town.browse(channel)]


def numbered(first, last, channel="jobs"):
    return [(channel, str(number).encode()) for number in range(first, last)]


def counted(bus, channel="jobs"):
    stats = bus.metrics().channels[channel]
    return stats.published, stats.dropped, stats.refused


async def handled(town, count):
    """Have the oldest handled."""
    bus = await town.bus()
    seen = []

    async def handler(message):
        seen.append(message.payload)

    subscription = bus.subscribe("jobs", handler, group="g", capacity=1)
    await town.eventually(lambda: len(seen) >= count)
    await subscription.unsubscribe()
    return seen


@virtual
async def test_what_finds_the_store_full_waits_in_its_place_and_the_batch_with_it(town):
    bus = await town.bus()
    bus.create_channel("jobs", capacity=3, overflow="block")
    publishing = asyncio.ensure_future(bus.publish_many([*numbered(0, 5), ("other", b"x")]))
    later = asyncio.ensure_future(bus.publish_many(numbered(5, 7)))
    await asyncio.sleep(1)
    assert bodies(town) == [b"0", b"1", b"2"]
    assert bodies(town, "other") == [b"x"]
    assert not publishing.done()
    assert await handled(town, 7) == [str(number).encode() for number in range(7)]
    ids = [*await publishing, *await later]
    assert None not in ids
    assert len(set(ids)) == 8
    assert counted(bus) == (7, 0, 0)
    await town.close()


@virtual
async def test_what_is_withdrawn_while_it_waits_for_room_has_not_happened(town):
    bus = await town.bus()
    bus.create_channel("jobs", capacity=3, overflow="block")
    publishing = asyncio.ensure_future(bus.publish_many(numbered(0, 5)))
    await asyncio.sleep(1)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    assert await handled(town, 3) == [b"0", b"1", b"2"]
    await asyncio.sleep(1)
    assert bodies(town) == []
    await town.close()


@virtual
async def test_what_is_withdrawn_before_it_is_handed_over_has_not_happened(town, relay_on):
    relay = relay_on(town.store)
    bus = await town.bus(relay)
    relay.gate.clear()
    first = asyncio.ensure_future(bus.publish("jobs", b"first"))
    await town.loop.idle()
    publishing = asyncio.ensure_future(bus.publish_many(numbered(0, 5)))
    await town.loop.idle()
    publishing.cancel()
    await town.loop.idle()
    relay.gate.set()
    await first
    await town.loop.idle()
    assert bodies(town) == [b"first"]
    await town.close()


@pytest.mark.parametrize(("overflow", "counts"), [("reject", (2, 0, 2)), ("drop_new", (2, 2, 0))])
@virtual
async def test_what_a_full_channel_refuses_or_drops_is_told_by_item(town, overflow, counts):
    bus = await town.bus()
    bus.create_channel("jobs", capacity=2, overflow=overflow)
    items = [*numbered(0, 2), ("other", b"x"), *numbered(2, 4)]
    if overflow == "reject":
        with pytest.raises(PublishManyFailed) as caught:
            await bus.publish_many(items)
        results, errors = caught.value.results, caught.value.errors
        assert {place: type(error) for place, error in errors.items()} == {3: ChannelFull, 4: ChannelFull}
        assert [errors[place].message.payload for place in (3, 4)] == [b"2", b"3"]
    else:
        results = await bus.publish_many(items)
    assert [result is None for result in results] == [False, False, False, True, True]
    assert bodies(town) == [b"0", b"1"]
    assert counted(bus) == counts
    await town.close()


@virtual
async def test_an_idempotency_key_that_is_known_gives_its_id_to_every_item_that_has_it(town):
    bus = await town.bus()
    keyed = ("jobs", b"1", None, {"idempotency_key": "once"})
    ids = await bus.publish_many([keyed, ("jobs", b"2"), keyed])
    assert None not in ids
    assert bodies(town) == [b"1", b"2"]
    assert counted(bus) == (3, 0, 0)
    await town.close()


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [(RuntimeError("gone"), PublishUnknown), (NotStored("memory", "no room"), NotStored)],
    ids=["unknown", "not stored"],
)
@virtual
async def test_what_the_transport_raises_is_every_items_error(town, relay_on, trouble, expected):
    relay = relay_on(town.store)
    bus = await town.bus(relay)
    relay.refuse = trouble
    with pytest.raises(PublishManyFailed) as caught:
        await bus.publish_many(numbered(0, 3))
    assert [type(error) for error in caught.value.errors.values()] == [expected] * 3
    assert counted(bus) == (0, 0, 3)
    relay.refuse = None
    assert None not in await bus.publish_many(numbered(0, 3))
    await town.close()


@virtual
async def test_what_the_transport_knows_nothing_of_is_its_items_error_alone(town, relay_on):
    relay = relay_on(town.store)
    bus = await town.bus(relay)
    stored, unknown = PublishStatus.STORED, PublishStatus.UNKNOWN

    async def vague(publishes, settlements=()):
        return CommitResult([stored, unknown, stored], [])

    relay.commit = vague
    with pytest.raises(PublishManyFailed) as caught:
        await bus.publish_many(numbered(0, 3))
    assert {place: type(error) for place, error in caught.value.errors.items()} == {1: PublishUnknown}
    assert counted(bus) == (2, 0, 1)
    await town.close()


@virtual
async def test_a_channel_that_the_transport_refuses_fails_its_items_alone(town, relay_on):
    relay = relay_on(town.store)
    bus = await town.bus(relay)
    declare = relay.declare

    async def picky(config):
        if config.name == "bad":
            raise TransportError("not that one")
        await declare(config)

    relay.declare = picky
    bus.create_channel("bad", capacity=7)
    with pytest.raises(PublishManyFailed) as caught:
        await bus.publish_many([("jobs", b"1"), ("bad", b"2"), ("jobs", b"3")])
    assert list(caught.value.errors) == [1]
    assert "not that one" in str(caught.value.errors[1])
    assert bodies(town) == [b"1", b"3"]
    await town.close()


@virtual
async def test_items_of_a_channel_with_limits_keep_their_place_among_the_others(town):
    bus = await town.bus()
    bus.create_channel("slow", rate_limit=RateLimit(rate=2.0, burst=1.0))
    ids = await bus.publish_many([("slow", b"0"), ("jobs", b"1"), ("slow", b"2"), ("jobs", b"3"), ("slow", b"4")])
    assert len(set(ids)) == 5
    assert bodies(town, "slow") == [b"0", b"2", b"4"]
    assert bodies(town) == [b"1", b"3"]
    await town.close()


@virtual
async def test_all_that_is_withdrawn_counts_as_refused_once(town, relay_on):
    relay = relay_on(town.store)
    bus = await town.bus(relay)
    bus.create_channel("limited", rate_limit=RateLimit(rate=1e6, burst=1e6))
    relay.gate.clear()
    items = [*numbered(0, 3000), ("limited", b"1"), ("limited", b"2"), *numbered(0, 3)]
    publishing = asyncio.ensure_future(bus.publish_many(items))
    await town.loop.idle()
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    relay.gate.set()
    await town.loop.idle()
    assert counted(bus) == (0, 0, 3003)
    assert counted(bus, "limited") == (0, 0, 2)
    assert len(bodies(town)) in (0, 1024), "what the transport had already may have happened"
    await town.close()


@virtual
async def test_several_batches_keep_their_order_and_their_places(town):
    bus = await town.bus()
    ids = await bus.publish_many(numbered(0, 2500))
    assert bodies(town) == [str(number).encode() for number in range(2500)]
    assert [envelope.id for envelope in town.browse("jobs")] == ids
    await town.close()


@virtual
async def test_what_cannot_even_be_handed_over_fails_by_item(town, monkeypatch):
    bus = await town.bus()
    monkeypatch.setattr(bus._link.committer, "submit", lambda work: (_ for _ in ()).throw(LoopClosed))
    with pytest.raises(PublishManyFailed) as caught:
        await bus.publish_many(numbered(0, 1024))
    assert {type(error) for error in caught.value.errors.values()} == {LoopClosed}
    assert len(caught.value.errors) == 1024
    monkeypatch.undo()
    await town.close()


async def test_a_batch_of_another_loop_is_answered_there(tmp_path):
    pytest.importorskip("neuralcore_transports")
    async with MessageBus(f"sqlite://{tmp_path}/bus.db") as bus:

        async def elsewhere():
            return await bus.publish_many(numbered(0, 1500))

        ids = await asyncio.to_thread(asyncio.run, elsewhere())
        assert len(set(ids)) == 1500
        assert None not in ids
