"""What stays with a member while others of its partitions move."""

from __future__ import annotations

import asyncio
from secrets import token_hex
from typing import Any

import pytest

from neuralcore import Message, MessageBus
from tests.transports.clients import eventually

pytestmark = pytest.mark.timeout(120)

WAIT = 20.0
MANY = 8000
SLOW = "slow"


async def test_what_stays_is_handed_out_while_others_wait_for_their_handlers(kafka_broker: Any) -> None:
    """What this process has read of it, that is: the client library reads nothing until the others have gone."""
    url = f"kafka://{kafka_broker.bootstrap}/o{token_hex(4)}?lease=6&partitions=2&handover=25"
    release = asyncio.Event()
    slow: list[str | None] = []
    async with MessageBus(url) as bus, MessageBus(url) as other:
        keys = [f"key {number}" for number in range(8)]  # some in each partition

        async def take(message: Message) -> None:
            if message.payload == SLOW:
                slow.append(message.key)
                await release.wait()
            await asyncio.sleep(0.0005)

        bus.subscribe("orders", take, group="g", concurrency=len(keys) + 4)
        for key in keys:
            await bus.publish("orders", SLOW, key=key)
        await eventually(lambda: len(slow) == len(keys), "all of them", WAIT)
        (member,) = bus._link.transport.members

        def moving() -> bool:
            return member._moving.is_set()

        assert len({partition.key for partition in member.owned if partition.in_flight}) == 2
        await bus.publish_many([("orders", number, None, {}) for number in range(MANY)])
        other.subscribe("orders", lambda message: None, group="g")
        await eventually(moving, "a partition to move", WAIT)
        (stays,) = (partition for partition in member.owned if not partition.closing)
        reserved = stays.window.reserved
        assert stays.buffered > 600
        await eventually(lambda: stays.window.next > reserved + 300, "what a commit has said meanwhile", WAIT)
        assert moving()
        release.set()
        await eventually(lambda: not moving(), "it to have moved", WAIT)
