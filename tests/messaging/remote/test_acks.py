"""Acknowledgements that share one work of the committer: one answer for all of them, or one for each."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from neuralcore.messaging.errors import NotStored
from neuralcore.messaging.transport import SettleStatus
from neuralcore.testing import virtual


@pytest.fixture
def answering(relay_on):
    """A transport that answers acknowledgements of some ids otherwise, once each."""

    class Answering(relay_on):
        others: dict[str, SettleStatus]
        acked: Counter[str]

        def __init__(self, store):
            super().__init__(store)
            self.others, self.acked = {}, Counter()

        async def commit(self, publishes, settlements=()):
            ids = [each.delivery.envelope.id for each in settlements]
            result = await super().commit(publishes, settlements)
            self.acked.update(ids)
            settled = [self.others.pop(id, status) for id, status in zip(ids, result.settled, strict=True)]
            return replace(result, settled=settled)

    return Answering


async def handle_all(town, bus, count):
    """They are handled while a commit is under way, so that their acknowledgements are one work."""
    seen = []
    await bus.subscribe("jobs", seen.append, group="g", blocking=False).ready()
    await town.eventually(lambda: len(seen) == count)
    return seen


@virtual
async def test_one_that_is_unknown_is_told_again_by_itself(town, answering):
    bus = await town.bus(transport := answering(town.store))
    ids = await bus.publish_many([("jobs", number) for number in range(50)])
    transport.others = {ids[7]: SettleStatus.UNKNOWN, ids[30]: SettleStatus.UNKNOWN}
    await handle_all(town, bus, 50)
    await town.eventually(lambda: transport.acked[ids[7]] == transport.acked[ids[30]] == 2)
    assert transport.acked == Counter(ids) + Counter([ids[7], ids[30]])
    assert max(count for _, count in transport.commits) > 40
    await town.close()


@virtual
async def test_one_that_came_too_late_is_counted_and_its_message_knows(town, answering):
    bus = await town.bus(transport := answering(town.store))
    ids = await bus.publish_many([("jobs", number) for number in range(50)])
    transport.others = {ids[7]: SettleStatus.LEASE_LOST}
    seen = await handle_all(town, bus, 50)
    await town.eventually(lambda: sum(message.lease_lost for message in seen) == 1)
    assert [message.id for message in seen if message.lease_lost] == [ids[7]]
    assert bus.metrics().transport["leases_lost"] == 1
    assert transport.acked == Counter(ids)
    await town.close()


@virtual
async def test_all_of_them_are_told_again_when_nothing_is_known(town, relay_on):
    bus = await town.bus(transport := relay_on(town.store))
    await bus.publish_many([("jobs", number) for number in range(50)])
    transport.refuse = ConnectionResetError("no answer")
    await handle_all(town, bus, 50)
    assert town.stats().depth == 50
    transport.refuse = None
    await town.eventually(lambda: town.stats().depth == 0)
    assert len(transport.settled) == 50
    await town.close()


@virtual
async def test_what_there_is_no_room_for_at_once_is_told_in_parts(town, relay_on):
    class Narrow(relay_on):
        most = 70

        async def commit(self, publishes, settlements=()):
            if len(settlements) > self.most:
                raise NotStored("narrow", "no room")
            return await super().commit(publishes, settlements)

    bus = await town.bus(transport := Narrow(town.store))
    await bus.publish_many([("jobs", number) for number in range(900)])
    await handle_all(town, bus, 900)
    await town.eventually(lambda: town.stats().depth == 0)
    assert len(transport.settled) == len(set(transport.settled)) == 900
    together = [settlements for _, settlements in transport.commits if settlements]
    assert max(together) <= 70
    assert len(together) < 100, "not one by one"
    transport.most = 1000
    transport.commits.clear()
    await bus.publish_many([("jobs", number) for number in range(200)])
    await town.eventually(lambda: town.stats().depth == 0)
    assert max(settlements for _, settlements in transport.commits) > 100
    await town.close()


@virtual
async def test_closing_waits_for_them(town, relay_on):
    bus = await town.bus(transport := relay_on(town.store))
    await bus.publish_many([("jobs", number) for number in range(50)])
    transport.gate.clear()
    await handle_all(town, bus, 50)
    closing = asyncio.ensure_future(bus.close())
    await asyncio.sleep(1)
    assert not closing.done()
    transport.gate.set()
    await closing
    assert town.stats().depth == 0
