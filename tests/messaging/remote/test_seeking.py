"""Going back in what a group's channels keep."""

import datetime as dt

import pytest

from neuralcore import ChannelConfig, MessageBus, Retention
from neuralcore.messaging.errors import Closed, Unsupported
from neuralcore.testing import virtual


async def handled(town, bus):
    """A subscription that has handled 0 to 4, and what its handler gets."""
    got = []
    bus.create_channel(ChannelConfig("jobs", retention=Retention(count=100)))

    @bus.subscribe("jobs", group="g")
    async def handle(message):
        got.append((message.payload, message.id))

    await handle.ready()
    for n in range(5):
        await bus.publish("jobs", n)
    await town.eventually(lambda: len(got) == 5)
    return handle, got


@virtual
async def test_from_the_beginning_and_from_an_id(town):
    bus = await town.bus()
    subscription, got = await handled(town, bus)
    await subscription.seek("beginning")
    await town.eventually(lambda: len(got) == 10)
    assert [payload for payload, _ in got] == [0, 1, 2, 3, 4] * 2
    await subscription.seek(got[3][1])
    await town.eventually(lambda: len(got) == 12)
    assert [payload for payload, _ in got[10:]] == [3, 4]
    await town.close()


@virtual
async def test_to_the_end_skips_what_waits(town):
    bus = await town.bus()
    subscription, got = await handled(town, bus)
    await subscription.seek("new")
    await bus.publish("jobs", "next")
    await town.eventually(lambda: len(got) == 6)
    assert got[-1][0] == "next"
    await town.close()


@virtual
async def test_a_position_that_cannot_be_found_changes_nothing(town):
    bus = await town.bus()
    subscription, got = await handled(town, bus)
    with pytest.raises(ValueError, match="no message 'nobody'"):
        await subscription.seek("nobody")
    with pytest.raises(ValueError, match="zone"):
        await subscription.seek(dt.datetime(2026, 1, 1))  # noqa: DTZ001 - that is the mistake
    await bus.publish("jobs", "next")
    await town.eventually(lambda: len(got) == 6)
    await town.close()


@virtual
async def test_a_subscription_that_has_ended_says_so(town):
    bus = await town.bus()
    subscription, _ = await handled(town, bus)
    await subscription.unsubscribe()
    with pytest.raises(Closed, match="the subscription"):
        await subscription.seek("beginning")
    await town.close()


async def test_in_process_nothing_is_kept():
    async with MessageBus() as bus:

        @bus.subscribe("jobs")
        async def handle(message):
            pass

        with pytest.raises(Unsupported, match="seek"):
            await handle.seek("beginning")
