"""What a publish refuses before anything is sent."""

import math

import pytest

from neuralcore.messaging.errors import PriorityOutOfRange
from neuralcore.testing import virtual

TEXTS = ("key", "correlation_id", "reply_to", "content_type", "message_id", "idempotency_key")
SECONDS = ("ttl", "delay", "not_before")


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        *(({name: 5}, TypeError, f"{name} must be a str or None") for name in TEXTS),
        *(({name: b"bytes"}, TypeError, f"{name} must be a str or None") for name in TEXTS),
        ({"message_id": ""}, ValueError, "message_id must not be empty"),
        *(({"headers": wrong}, TypeError, "headers must map str to str") for wrong in ({"a": 1}, {1: "a"}, ["a"], 5)),
        *(({name: "1"}, TypeError, f"{name} must be a number of seconds, not '1'") for name in SECONDS),
        *(({name: seconds}, ValueError, name) for name in SECONDS for seconds in (math.nan, math.inf)),
        *(({"priority": priority}, TypeError, "priority must be an integer, not ") for priority in ("1", 1.5)),
        *(({"priority": priority}, PriorityOutOfRange, "priority") for priority in (-1, 256, 2**70)),
    ],
    ids=str,
)
@virtual
async def test_it_is_refused_and_nothing_is_stored(town, options, error, text):
    bus = await town.bus()
    with pytest.raises(error, match=text):
        await bus.publish("jobs", 1, **options)
    assert len(town.browse("jobs")) == 0
    assert bus.metrics().refused == 1
    await town.close()


@pytest.mark.parametrize(
    "options",
    [
        {"ttl": 1e30},
        {"priority": 255},
        {"priority": True},
        {"delay": -1},
        {"not_before": -1},
        {"headers": {}},
        {"key": ""},
    ],
    ids=str,
)
@virtual
async def test_what_is_in_range_arrives(town, options):
    bus, seen = await town.bus(), []
    await bus.subscribe("jobs", lambda message: seen.append(message.payload), group="g", blocking=False).ready()
    await bus.publish("jobs", 1, **options)
    await town.eventually(lambda: seen == [1])
    await town.close()


@virtual
async def test_a_delay_beyond_all_time_never_ends(town):
    bus = await town.bus()
    await bus.publish("jobs", 1, delay=1e30)
    await bus.publish("jobs", 2, not_before=1e30)
    assert [(e.delay_ns, e.not_before_ns) for e in town.browse("jobs")] == [(2**63 - 1, None), (0, 2**63 - 1)]
    await town.close()
