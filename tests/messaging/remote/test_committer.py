"""Group commit, from the publisher's side."""

import asyncio
import contextlib

import pytest

from neuralcore.messaging.errors import ChannelFull, NotStored, PublishManyFailed, PublishUnknown
from neuralcore.messaging.transport import CommitResult, SettleStatus
from neuralcore.testing import virtual
from neuralcore.testing.memory import MemoryTransport


@virtual
async def test_concurrent_publishers_share_a_commit_and_one_alone_waits_for_nobody(town, relay_on):
    relay = relay_on(town.store)
    bus = await town.bus(relay)
    before = town.loop.time()
    await bus.publish("jobs", 0)
    assert town.loop.time() == before
    relay.gate.clear()
    publishing = [asyncio.ensure_future(bus.publish("jobs", number)) for number in range(100)]
    await town.loop.idle()
    relay.gate.set()
    await asyncio.gather(*publishing)
    assert relay.commits == [(1, 0), (100, 0)]
    await town.close()


@virtual
async def test_while_a_commit_is_under_way_the_next_one_gathers(town, relay_on):
    relay = relay_on(town.store)
    bus = await town.bus(relay)
    relay.gate.clear()
    first = asyncio.ensure_future(bus.publish("jobs", 0))
    await town.loop.idle()
    rest = [asyncio.ensure_future(bus.publish("jobs", number)) for number in range(1, 10)]
    await town.loop.idle()
    relay.gate.set()
    await asyncio.gather(first, *rest)
    assert relay.commits == [(1, 0), (9, 0)]
    await town.close()


@virtual
async def test_settlements_of_fast_handlers_share_commits(town, relay_on):
    relay = relay_on(town.store)
    bus, handled = await town.bus(relay), []
    await bus.publish_many([("jobs", number) for number in range(500)])
    await bus.subscribe("jobs", handled.append, group="g", blocking=False).ready()
    await town.eventually(lambda: town.stats().depth == 0)
    assert len(handled) == 500
    assert len([count for _, count in relay.commits if count]) < 50
    await town.close()


@virtual
async def test_a_batch_is_bounded_by_count_and_by_bytes(town, relay_on):
    relay = relay_on(town.store)
    bus = await town.bus(relay)
    await bus.publish_many([("jobs", number) for number in range(1000)])
    assert relay.commits == [(1000, 0)], "one transaction"
    await bus.publish_many([("jobs", number) for number in range(3000)])
    assert max(count for count, _ in relay.commits) <= 1024
    relay.commits.clear()
    await bus.publish_many([("big", bytes(1024 * 1024))] * 20)
    assert max(count for count, _ in relay.commits) <= 5
    await town.close()


@virtual
async def test_a_lost_answer_is_unknown_and_repeating_the_publish_stores_it_once(town, relay_on):
    relay = relay_on(town.store)
    bus = await town.bus(relay)
    relay.lose_answer = True
    with pytest.raises(PublishUnknown) as unknown:
        await bus.publish("jobs", 1)
    relay.lose_answer = False
    assert await bus.publish("jobs", 1, message_id=unknown.value.id) == unknown.value.id
    assert len(town.browse("jobs")) == 1
    await town.close()


@virtual
async def test_publish_many_reports_each_item(town):
    bus = await town.bus()
    bus.create_channel("tiny", capacity=1, overflow="reject")
    bus.create_channel("lossy", capacity=1, overflow="drop_new")
    with pytest.raises(PublishManyFailed) as failed:
        await bus.publish_many(
            [("tiny", 1), ("tiny", 2), ("lossy", 1), ("lossy", 2), ("a..b", 1), ("jobs", 1, 7, {"key": "k"})]
        )
    assert [result is not None for result in failed.value.results] == [True, False, True, False, False, True]
    assert {index: type(error).__name__ for index, error in failed.value.errors.items()} == {
        1: "ChannelFull",
        4: "InvalidChannelName",
    }
    (stored,) = town.browse("jobs")
    assert (stored.priority, stored.key) == (7, "k")
    await town.close()


@virtual
async def test_a_refused_message_is_carried_by_its_error(town):
    bus = await town.bus()
    bus.create_channel("tiny", capacity=1, overflow="reject")
    await bus.publish("tiny", 1)
    with pytest.raises(ChannelFull) as full:
        await bus.publish("tiny", {"a": 2}, key="k")
    assert (full.value.message.payload, full.value.message.key) == ({"a": 2}, "k")
    assert bus.metrics().channels["tiny"].refused == 1
    await town.close()


@virtual
async def test_publishers_that_wait_for_room_enter_in_order(town):
    bus, seen = await town.bus(), []
    bus.create_channel("tiny", capacity=2)
    publishing = []
    for number in range(20):
        publishing.append(asyncio.ensure_future(bus.publish("tiny", number)))
        await asyncio.sleep(0.01)
    assert sum(task.done() for task in publishing) == 2

    async def handler(message):
        seen.append(message.payload)
        await asyncio.sleep(0.1)

    await bus.subscribe("tiny", handler, group="g").ready()
    await asyncio.gather(*publishing)
    await town.eventually(lambda: len(seen) == 20)
    assert seen == list(range(20))
    await town.close()


@virtual
async def test_a_full_channel_holds_up_nobody_else(town):
    bus = await town.bus()
    bus.create_channel("tiny", capacity=1)
    await bus.publish("tiny", 1)
    stuck = asyncio.ensure_future(bus.publish("tiny", 2))
    await asyncio.sleep(1)
    before = town.loop.time()
    await bus.publish("jobs", 1)
    assert town.loop.time() == before
    assert not stuck.done()
    stuck.cancel()
    await town.close()


@virtual
async def test_a_waiting_publish_that_is_cancelled_has_not_happened(town):
    bus = await town.bus()
    bus.create_channel("tiny", capacity=1)
    await bus.publish("tiny", "first")
    stuck = asyncio.ensure_future(bus.publish("tiny", "cancelled"))
    await asyncio.sleep(1)
    stuck.cancel()
    seen = []
    await bus.subscribe("tiny", lambda m: seen.append(m.payload), group="g", blocking=False).ready()
    await asyncio.sleep(5)
    assert seen == ["first"]
    assert town.stats("tiny").depth == 0
    await town.close()


class Forgetful(MemoryTransport):
    """Answers too few statuses, until it is repaired."""

    broken = True

    async def commit(self, publishes, settlements=()):
        result = await super().commit(publishes, settlements)
        return CommitResult() if self.broken else result


@virtual
async def test_a_transport_that_answers_too_few_statuses_leaves_nobody_waiting(town):
    transport = Forgetful(town.store)
    bus = await town.bus(transport)
    with pytest.raises(PublishUnknown) as unknown:
        await bus.publish("jobs", 1)
    assert "one for each" in str(unknown.value.__cause__)
    transport.broken = False
    assert await bus.publish("jobs", 2) is not None
    await town.close()


@virtual
async def test_publishes_that_wait_for_room_are_not_overtaken_while_commits_are_slow(town, relay_on):
    class Slow(relay_on):
        async def commit(self, publishes, settlements=()):
            await asyncio.sleep(0.02)
            return await super().commit(publishes, settlements)

    bus, seen = await town.bus(Slow(town.store)), []
    bus.create_channel("jobs", capacity=3, overflow="block")

    async def handler(message):
        seen.append(message.payload)
        await asyncio.sleep(0.013)

    await bus.subscribe("jobs", handler, group="g").ready()
    publishing = []
    for number in range(60):
        publishing.append(asyncio.ensure_future(bus.publish("jobs", number)))
        await asyncio.sleep(0.003)
    await asyncio.gather(*publishing)
    await town.eventually(lambda: len(seen) == 60)
    assert seen == list(range(60))
    await town.close()


@virtual
async def test_a_publish_that_cannot_be_stored_holds_up_no_settlement(town, relay_on):
    """As on a full disk, which settlements alone give room back on."""

    class Full(relay_on):
        full = False

        async def commit(self, publishes, settlements=()):
            await asyncio.sleep(0.001)
            if self.full and publishes:
                raise NotStored("memory", "there is no room")
            return await super().commit(publishes, settlements)

    bus = await town.bus(transport := Full(town.store))
    await bus.publish_many([("jobs", number) for number in range(100)])
    transport.full = True
    refused = 0

    async def publish_all_the_time(after):
        nonlocal refused
        await asyncio.sleep(after)  # each enters while another one's commit is under way
        while True:
            with contextlib.suppress(NotStored):
                await bus.publish("jobs", "one more")
            refused += 1

    publishing = [asyncio.ensure_future(publish_all_the_time(0.0004 * number)) for number in range(3)]
    await bus.subscribe("jobs", lambda message: None, group="g", blocking=False).ready()
    await town.eventually(lambda: town.stats().depth == 0, seconds=5)
    assert refused > 10
    for each in publishing:
        each.cancel()
    await town.close()


@virtual
async def test_many_items_of_one_commit_that_are_not_known_are_one_failure(town, caplog):
    """Or the next try would be as late as after a long outage."""

    class Half(MemoryTransport):
        lost = 0

        async def commit(self, publishes, settlements=()):
            result = await super().commit(publishes, settlements)
            if len(settlements) > 20 and not self.lost:
                self.lost = len(settlements)
                return CommitResult(result.published, [SettleStatus.UNKNOWN] * len(settlements), result.reasons)
            return result

    transport = Half(town.store)
    bus = await town.bus(transport)
    await bus.publish_many([("jobs", number) for number in range(300)])
    await bus.subscribe("jobs", lambda m: None, group="g", blocking=False).ready()
    await town.eventually(lambda: town.stats().depth == 0)
    assert transport.lost > 20
    told = [record.message.partition(",")[0] for record in caplog.records if "a commit" in record.message]
    assert told == ["a commit failed (1 in a row)"]
    await town.close()
