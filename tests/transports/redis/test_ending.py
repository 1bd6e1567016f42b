"""What is left of interests that end while their consumer goes on."""

from __future__ import annotations

import pytest

from neuralcore.messaging.errors import Unavailable
from neuralcore.messaging.transport import Demand, Group, Interest
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
