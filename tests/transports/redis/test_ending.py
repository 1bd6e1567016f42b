"""What is left of interests that end while their consumer goes on."""

from __future__ import annotations

import pytest

from neuralcore.messaging.errors import Unavailable
from neuralcore.messaging.transport import Demand, Group, Interest, Outcome, Settlement, SettleStatus
from tests.transports.redis.clients import envelope, eventually, new_prefix, opened, publish


async def test_what_was_handed_to_several_that_end_at_once_goes_back(redis_server):
    prefix = new_prefix()
    async with (
        opened(redis_server.url(), prefix=prefix, lease=5) as transport,
        opened(redis_server.url(), prefix=prefix, lease=5) as other,
    ):
        for channel in "abc":
            await transport.client.ensure(channel)
        consumer = await transport.consume(Group("g"))
        await consumer.update([Interest(id=id, pattern=pattern) for id, pattern in enumerate("abc")])
        assert await consumer.fetch({0: Demand(10), 1: Demand(10)}, 0.1) == []
        await publish(other, envelope(channel="a"), envelope(channel="b"))
        await eventually(lambda: len(transport.leases) == 2, "them to be handed out")
        await consumer.update([Interest(id=2, pattern="c")])
        assert len(transport.leases) == 0
        assert {each.in_flight for each in (await other.stats()).values()} == {0}


async def test_a_broadcast_ends_though_the_first_try_failed(redis_server):
    async with opened(redis_server.url(), prefix=new_prefix()) as transport:
        await transport.client.ensure("orders")
        consumer = await transport.consume(Group(None))
        await consumer.update([Interest(id=1, pattern="orders")])
        ask = transport.client.channels

        async def fails() -> list[str]:
            transport.client.channels = ask
            raise Unavailable("redis", "for a moment")

        transport.client.channels = fails
        with pytest.raises(Unavailable):
            await consumer.update(())
        await consumer.update(())
        found = await transport.client.channel("stats", transport.client.layout.base("orders"))
        assert found[5:] == [], "its group is gone"


async def test_what_could_not_be_released_with_its_interest_is_released_by_the_next_try(redis_server):
    async with opened(redis_server.url(), prefix=new_prefix(), lease=5) as transport:
        consumer = await handed_one(transport)
        failing_once(transport, "commit")
        with pytest.raises(Unavailable):
            await consumer.update(())
        assert len(transport.leases) == 1
        await consumer.update(())
        assert len(transport.leases) == 0
        assert (await transport.stats())["orders"].in_flight == 0


async def test_of_a_consumer_that_could_not_be_closed_what_it_is_handed_goes_back(redis_server):
    async with opened(redis_server.url(), prefix=new_prefix(), lease=5) as transport:
        consumer = await handed_one(transport)
        failing_once(transport, "commit")
        with pytest.raises(Unavailable):
            await consumer.close()
        await publish(transport, envelope(), envelope())

        async def back() -> bool:
            return (await transport.stats())["orders"].in_flight == 0

        await eventually(back, "all of it to go back")
        await consumer.close()
        assert not transport.consumers


async def test_a_broadcast_that_has_begun_to_join_ends_though_it_could_not(redis_server):
    async with opened(redis_server.url(), prefix=new_prefix()) as transport:
        await transport.client.ensure("orders")
        registry = transport.client.registry

        async def fails(what: str, *parts: object) -> object:
            if what == "joined":
                transport.client.registry = registry
                raise Unavailable("redis", "for a moment")
            return await registry(what, *parts)

        transport.client.registry = fails
        consumer = await transport.consume(Group(None))
        interests = [Interest(id=1, pattern="orders")]
        with pytest.raises(Unavailable):
            await consumer.update(interests)
        await consumer.update(interests)
        found = await transport.client.channel("stats", transport.client.layout.base("orders"))
        assert len(found[5::4]) == 1, "the one that it has now"
        await consumer.close()
        found = await transport.client.channel("stats", transport.client.layout.base("orders"))
        assert found[5:] == []


async def test_what_nobody_knows_to_be_settled_is_still_held(redis_server):
    """It is asked again, and refused if it were not."""
    async with opened(redis_server.url(), prefix=new_prefix(), lease=5) as transport:
        await handed_one(transport)
        (delivery,) = transport.leases.all()
        settlement = Settlement(delivery, Outcome.ACK)
        assert transport.leases.settle(settlement, SettleStatus.UNKNOWN) is SettleStatus.UNKNOWN
        assert transport.leases.holds(delivery)
        assert (await transport.commit((), [settlement])).settled == [SettleStatus.SETTLED]
        assert not transport.leases.holds(delivery)


async def handed_one(transport):
    """A consumer that has it, and has not asked for it."""
    await transport.client.ensure("orders")
    consumer = await transport.consume(Group("g"))
    await consumer.update([Interest(id=1, pattern="orders")])
    assert await consumer.fetch({1: Demand(10)}, 0.1) == []
    await publish(transport, envelope())
    await eventually(lambda: len(transport.leases) == 1, "it to be handed out")
    return consumer


def failing_once(transport, name: str) -> None:
    does = getattr(transport, name)

    async def fails(*parts: object) -> object:
        setattr(transport, name, does)
        raise Unavailable("redis", "for a moment")

    setattr(transport, name, fails)
