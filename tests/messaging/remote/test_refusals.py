"""What a transport refuses concerns who asked for it; what it cannot do now is tried again."""

import asyncio

import pytest

from neuralcore.messaging.errors import Unsupported
from neuralcore.testing import virtual
from neuralcore.testing.memory import MemoryTransport


class Picky(MemoryTransport):
    """Says what a test tells it to say, to updates and to declarations of the channel ``odd``."""

    def __init__(self, store):
        super().__init__(store)
        self.update_fails = []
        self.declare_fails = []

    async def consume(self, group):
        consumer = await super().consume(group)
        update = consumer.update

        async def picky(interests):
            if self.update_fails:
                raise self.update_fails.pop()
            await update(interests)

        consumer.update = picky
        return consumer

    async def declare(self, channel):
        if channel.name == "odd" and self.declare_fails:
            raise self.declare_fails.pop()
        await super().declare(channel)


@virtual
@pytest.mark.parametrize("error", [ConnectionResetError("peer"), TimeoutError(), RuntimeError("not now")], ids=repr)
async def test_an_update_that_fails_once_is_tried_again(town, error):
    transport = Picky(town.store)
    transport.update_fails.append(error)
    bus, seen = await town.bus(transport), []
    await bus.subscribe("jobs", lambda m: seen.append(m.payload), group="g", blocking=False).ready()
    await bus.publish("jobs", 1)
    await town.eventually(lambda: seen == [1])
    await town.close()


@virtual
@pytest.mark.parametrize("bad_first", [True, False])
async def test_a_refused_subscription_does_not_take_those_made_with_it_down(town, bad_first):
    bus, seen = await town.bus(), []
    await bus.publish("b", 0)

    def bad():
        return bus.subscribe("b", lambda m: seen.append("bad"), group="g", blocking=False, start="no-such-id")

    refused = bad() if bad_first else None
    good = [
        bus.subscribe(name, lambda m: seen.append(m.payload), group="g", blocking=False) for name in ("jobs", "other")
    ]
    refused = refused or bad()
    with pytest.raises(ValueError, match="no-such-id"):
        await refused.ready()
    for subscription in good:
        await subscription.ready()
    for name in ("b", "jobs", "other"):
        await bus.publish(name, name)
    await town.eventually(lambda: sorted(seen) == ["jobs", "other"])
    later = bus.subscribe("later", lambda m: seen.append(m.payload), group="g", blocking=False)
    await later.ready()
    await bus.publish("later", "later")
    await town.eventually(lambda: seen[-1] == "later")
    await town.close()


@virtual
@pytest.mark.parametrize("error", [ValueError("whole hours"), TypeError("no"), Unsupported("odd things")], ids=repr)
async def test_a_refused_configuration_is_its_own_channel_s_matter(town, error):
    transport = Picky(town.store)
    transport.declare_fails = [error] * 5
    bus = await town.bus(transport)
    bus.create_channel("odd", ttl=3.0)
    await asyncio.wait_for(bus.publish("jobs", 1), 1)
    with pytest.raises(type(error)):
        await bus.publish("odd", 1)
    await town.close()


@virtual
async def test_a_configuration_that_cannot_be_told_now_is_told_later(town):
    transport = Picky(town.store)
    transport.declare_fails = [ConnectionResetError()] * 3
    bus = await town.bus(transport)
    bus.create_channel("odd", ttl=3.0)
    await bus.publish("odd", 1)
    assert town.browse("odd")[0].expires_at_ns is not None
    await town.close()
