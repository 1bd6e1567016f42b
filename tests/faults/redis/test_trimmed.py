"""Row 17: somebody else trims or deletes what is pending. It is counted, and nothing waits for what is gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from neuralcore.messaging.transport import Outcome
from tests.faults.plan import figures, tell, times
from tests.faults.redis.clients import message, opened, reader, settle, take
from tests.faults.redis.stage import RedisStage
from tests.faults.stage import reply
from tests.servers.redis import RedisServer

STREAM = "nc:{work}:p:50"


def delete(server: RedisServer, *ids: str) -> None:
    """By the ids of the messages."""
    with server.client() as client:
        entries = [entry for entry, fields in client.xrange(STREAM) if fields["ce_id"] in ids]
        assert client.xdel(STREAM, *entries) == len(ids)


def trimmed(server: RedisServer) -> int:
    with server.client() as client:
        return int(client.hget("nc:{work}:meta", "trimmed") or 0)


@pytest.mark.parametrize("how", ["XTRIM", "XDEL"])
def test_trimming_under_load(stage: RedisStage, how: str) -> None:
    """All that is there, again and again. What survives is settled, and what comes later flows."""
    consumers = [stage.consumer(concurrency=4, work=0.02) for _ in range(2)]
    producer = stage.producer(at_once=4, keys=20, pause=0.005)
    for _ in range(times(5, 100)):
        seen = len(producer.lines)
        producer.until(lambda lines: len(lines) > seen + 30)  # noqa: B023
        stage.journal.fault(how)
        with stage.server.client(decode_responses=False) as client:
            if how == "XTRIM":
                client.xtrim(STREAM, maxlen=0, approximate=False)
            elif entries := [entry for entry, _ in client.xrange(STREAM)]:
                client.xdel(STREAM, *entries[::2])
    reply(producer, "stop")
    stage.publish(10**6, 200, name="later", keys=20)
    stage.until_settled(timeout=8)
    story = stage.story()
    gone = story.unsettled.get("g", set())
    tell(17, f"{how} of everything under load", story, f"gone: {len(gone)}, counted: {trimmed(stage.server)}")
    assert {id for id in gone if id.startswith("later")} == set(), "what came later waits for what is gone"
    assert not story.phantoms
    assert stage.debris() == []
    for consumer in consumers:
        reply(consumer, "stop")


def record(fault: str, published: int, delivered: int) -> None:
    tell(17, fault, figures("XDEL", 1, attempted=published, acked=published, delivered=delivered))


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis(appendfsync="no")


async def test_what_is_deleted_while_it_waits_for_a_retry_frees_its_key(server: RedisServer) -> None:
    async with opened(server) as (made, _), reader(made) as consumer:
        await made.commit([message(1, key="k"), message(2, key="k")])
        (first,) = await take(consumer)
        await settle(made, [first], Outcome.NACK)
        delete(server, "m-1")
        found = await take(consumer)
        tell(
            17, "deleted while it waits for a retry", figures("XDEL", 1, attempted=2, acked=2, delivered=1 + len(found))
        )
        assert [each.envelope.id for each in found] == ["m-2"]
        await settle(made, found)
    assert trimmed(server) == 1


async def test_what_is_deleted_while_it_waits_for_its_key_lets_the_next_one_pass(server: RedisServer) -> None:
    async with opened(server) as (made, _), reader(made) as consumer:
        await made.commit([message(number, key="k") for number in (1, 2, 3)])
        (first,) = await take(consumer)
        assert await take(consumer, timeout=0.2) == []
        delete(server, "m-2")
        await settle(made, [first])
        found = await take(consumer)
        tell(
            17, "deleted while it waits for its key", figures("XDEL", 1, attempted=3, acked=3, delivered=1 + len(found))
        )
        assert [each.envelope.id for each in found] == ["m-3"]
        await settle(made, found)
    assert trimmed(server) == 1


async def test_what_a_dead_client_had_frees_its_key_though_it_is_deleted(server: RedisServer) -> None:
    async with opened(server) as (made, runtime), reader(made) as consumer:
        await made.commit([message(1, key="k"), message(2, key="k"), message(3)])
        async with opened(server) as (other, _), reader(other) as dying:
            held = await take(dying, 2)
            assert [each.envelope.id for each in held] == ["m-1", "m-3"]
            other._keeper.stop()
            delete(server, "m-1")
            found = await take(consumer, 2, timeout=6)
        record("deleted while a dead client had it", 3, len(found))
        assert sorted(each.envelope.id for each in found) == ["m-2", "m-3"]
        await settle(made, found)
    assert trimmed(server) == 1
    assert runtime.counts["trimmed"] == 1
    assert runtime.told == [("work", "somebody else has deleted 1 messages that a group had not settled")]


async def test_what_is_held_for_too_long_and_deleted_is_told(server: RedisServer) -> None:
    async with opened(server, "lease=0.5&max_hold=1") as (made, runtime), reader(made) as consumer:
        await made.commit([message(1, key="k"), message(2, key="k")])
        (held,) = await take(consumer)
        delete(server, "m-1")
        (found,) = await take(consumer)
        record("deleted while it is held for too long", 2, 2)
        assert found.envelope.id == "m-2"
        await settle(made, [found])
    assert held in runtime.taken
    assert runtime.counts["trimmed"] == trimmed(server) == 1
    assert [channel for channel, _ in runtime.told] == ["work"]


async def test_what_is_deleted_in_a_handler_can_be_settled(server: RedisServer) -> None:
    async with opened(server) as (made, _), reader(made) as consumer:
        await made.commit([message(number, key=f"k{number % 2}") for number in range(8)])
        for outcome in (Outcome.ACK, Outcome.NACK, Outcome.RELEASE):
            held = await take(consumer, 2)
            assert len(held) == 2, f"nothing comes after {outcome}"
            delete(server, *(each.envelope.id for each in held))
            await settle(made, held, outcome)
        last = await take(consumer, 2)
        record("deleted in a handler", 8, 6 + len(last))
        assert [each.envelope.id for each in last] == ["m-6", "m-7"]
        await settle(made, last)
    assert trimmed(server) == 4, "two of them were acknowledged"
