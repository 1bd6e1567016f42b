"""Envelopes that somebody else has written, and that are none."""

import asyncio

import pytest

from neuralcore.messaging import headers
from neuralcore.messaging.transport import Envelope
from neuralcore.testing import virtual
from neuralcore.testing.memory import MemoryTransport

GOOD = {"id": "f" * 32, "channel": "jobs", "body": b"1", "content_type": "application/json", "headers": {"h": "v"}}


def plant(town, **wrong):
    return town.store.publish(Envelope(**{**GOOD, **wrong}), town.now())


async def subscribed(town, pattern="jobs", **options):
    bus, seen = await town.bus(), []
    options = {"group": "g", "blocking": False, **options}
    await bus.subscribe(pattern, lambda message: seen.append(message.payload), **options).ready()
    return bus, seen


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": 5},
        {"key": 5},
        {"correlation_id": 5},
        {"reply_to": 5},
        {"content_type": 5},
        {"headers": [1]},
        {"timestamp_ns": "now"},
        {"timestamp_ns": 2**70},
        {"expires_at_ns": "never"},
        {"content_type": None},
        {"body": "1"},
        {"body": 1},
    ],
    ids=str,
)
@virtual
async def test_it_becomes_a_dead_letter_and_its_neighbours_are_handled(town, wrong):
    bus, seen = await subscribed(town)
    await bus.publish("jobs", "before")
    plant(town, **wrong)
    await bus.publish("jobs", "after")
    await town.eventually(lambda: town.stats().depth == 0)
    (letter,) = town.browse("_dlq.jobs")
    assert seen == ["before", "after"]
    assert letter.body == b"1"
    assert (letter.headers[headers.DLQ_ORIGIN], letter.headers[headers.DLQ_REASON]) == ("jobs", "undecodable")
    assert letter.headers[headers.DLQ_ERROR_TYPE]
    metrics = bus.metrics()
    assert (metrics.transport["malformed"], metrics.dead_lettered) == (1, 1)
    await town.close()


@virtual
async def test_its_dead_letter_is_a_message_like_any_other(town):
    bus, _ = await subscribed(town)
    _, letters = await subscribed(town, "_dlq.jobs")
    plant(town, key=5, headers={"h": 1})
    await town.eventually(lambda: len(letters) == 1)
    assert letters == [1]
    assert bus.metrics().transport["malformed"] == 1
    await town.close()


@virtual
async def test_where_nobody_wants_dead_letters_it_is_counted_as_discarded(town):
    bus, seen = await subscribed(town, dead_letter=False)
    plant(town, key=5)
    await town.eventually(lambda: town.stats().depth == 0)
    assert seen == []
    assert bus.metrics().transport == {"malformed": 1, "discarded": 1}
    await town.close()


@virtual
async def test_what_not_even_a_dead_letter_can_be_made_of_stays_in_the_store(town):
    class Wrecker(MemoryTransport):
        """Its deliveries have no envelope."""

        async def consume(self, group):
            consumer = await super().consume(group)
            fetch = consumer.fetch

            async def wrecking(demand, timeout):
                deliveries = await fetch(demand, timeout)
                for delivery in deliveries:
                    if delivery.envelope.key == "wreck":
                        delivery.envelope = None
                return deliveries

            consumer.fetch = wrecking
            return consumer

    bus, seen = await town.bus(Wrecker(town.store)), []
    await bus.subscribe("jobs", lambda message: seen.append(message.payload), group="g", blocking=False).ready()
    await bus.publish("jobs", "wreck", key="wreck")
    await bus.publish("jobs", "fine")
    await asyncio.sleep(5)
    assert seen == ["fine"]
    assert bus.metrics().transport["malformed"] == 1
    assert (town.stats().depth, town.stats().in_flight) == (1, 0)
    await bus.close()
    _, seen = await subscribed(town)
    await town.eventually(lambda: seen == ["wreck"])
    await town.close()
