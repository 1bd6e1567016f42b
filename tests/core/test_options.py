"""What both cores refuse by its type, before anything has happened."""

from __future__ import annotations

import math

import pytest

TEXTS = ("key", "correlation_id", "reply_to", "content_type", "message_id")
WRONG = [
    *({name: wrong} for name in TEXTS for wrong in (5, b"bytes", ["list"])),
    *({name: "1"} for name in ("ttl", "delay", "not_before")),
    *({"priority": wrong} for wrong in ("1", 1.5, [])),
    {"headers": 5},
    {"headers": [1]},
    {"headers": [("h", "v")]},
    {"headers": {"h": 5}},
    {"headers": {5: "v"}},
]
OUTSIDE = [{name: seconds} for name in ("ttl", "delay", "not_before") for seconds in (math.nan, math.inf, -math.inf)]


@pytest.mark.parametrize("options", WRONG, ids=str)
@pytest.mark.parametrize("method", ["publish", "publish_nowait"])
async def test_options_of_the_wrong_type(rig, method, options):
    mailbox = rig.mailbox("jobs")
    [name] = options
    with pytest.raises(TypeError, match=f"^{name} must "):
        await getattr(rig.router, method)("jobs", 1, **options)
    assert mailbox.depth() == 0


@pytest.mark.parametrize("name", TEXTS)
async def test_what_is_no_text_is_named(rig, refused, name):
    mailbox = rig.mailbox("jobs")
    with pytest.raises(TypeError, match=f"{name} must be a str or None"):
        await rig.publish("jobs", 1, **{name: 5})
    with pytest.raises(refused) as caught:
        await rig.router.publish_many([("jobs", 1, None, {name: 5})])
    assert isinstance(caught.value.detail[1][0], TypeError)
    assert mailbox.depth() == 0


async def test_what_is_no_number_is_named_and_shown(rig):
    rig.mailbox("jobs")
    with pytest.raises(TypeError, match=r"^ttl must be a number of seconds, not 'soon'$"):
        await rig.publish("jobs", 1, ttl="soon")
    with pytest.raises(TypeError, match=r"^priority must be an integer, not 'high'$"):
        await rig.publish("jobs", 1, priority="high")


@pytest.mark.parametrize("name", ["priority", "ttl"])
async def test_an_option_whose_conversion_fails_shows_that_failure(rig, name):
    class Odd:
        def __index__(self):
            raise LookupError("odd")

        __float__ = __index__

    mailbox = rig.mailbox("jobs")
    with pytest.raises(LookupError, match="odd"):
        await rig.publish("jobs", 1, **{name: Odd()})
    assert mailbox.depth() == 0


@pytest.mark.parametrize("method", ["publish", "publish_nowait"])
async def test_a_message_id_is_not_empty(rig, method):
    mailbox = rig.mailbox("jobs")
    with pytest.raises(ValueError, match="message_id must not be empty"):
        await getattr(rig.router, method)("jobs", 1, message_id="")
    assert mailbox.depth() == 0


@pytest.mark.parametrize("options", OUTSIDE, ids=str)
async def test_seconds_are_finite(rig, options):
    mailbox = rig.mailbox("jobs")
    with pytest.raises(ValueError, match="finite number of seconds"):
        await rig.publish("jobs", 1, **options)
    assert mailbox.depth() == 0


@pytest.mark.parametrize("priority", [2**63, 2**70, -(2**70)])
async def test_a_priority_beyond_all_ranks_is_out_of_range(rig, refused, priority):
    mailbox = rig.mailbox("jobs")
    with pytest.raises(refused) as caught:
        await rig.publish("jobs", 1, priority=priority)
    assert caught.value.kind == "priority"
    assert mailbox.depth() == 0


async def test_a_time_to_live_beyond_all_time_ends_with_it(rig):
    mailbox = rig.mailbox("jobs")
    await rig.publish("jobs", 1, ttl=1e30)
    assert mailbox.take().expires_at_ns == 2**63 - 1


@pytest.mark.parametrize("part", ["key", "correlation_id", "reply_to", "content_type", "id"])
def test_the_texts_of_a_message(core, part):
    with pytest.raises(TypeError, match=part):
        core.Message("jobs", 1, **{"id": "1", part: 5})


@pytest.mark.parametrize("part", ["priority", "timestamp_ns", "expires_at_ns", "attempt"])
@pytest.mark.parametrize("wrong", ["1", 1.5, 2**70])
def test_the_numbers_of_a_message(core, part, wrong):
    with pytest.raises(OverflowError if wrong == 2**70 else TypeError, match=None if wrong == 2**70 else part):
        core.Message("jobs", 1, id="1", **{part: wrong})


@pytest.mark.parametrize(
    "options",
    [{"capacity": "1"}, {"capacity": 1.5}, {"capacity": 2**70}, {"overflow": 5}, {"hold_keys": "x"}, {"hold_keys": 1}],
    ids=str,
)
def test_the_options_of_a_mailbox(rig, options):
    with pytest.raises((TypeError, OverflowError)):
        rig.mailbox("jobs", **options)


def test_a_group_is_a_text(rig):
    with pytest.raises(TypeError):
        rig.mailbox("jobs", group=5)
    assert rig.router.match("jobs") == []


@pytest.mark.parametrize(
    "options",
    [{"name": 5}, {"batch": "1"}, {"batch": 1.5}, {"timeout": "1"}, {"timeout": math.nan}, {"timeout": math.inf}],
    ids=str,
)
def test_the_options_of_a_pump(rig, options):
    mailbox = rig.mailbox("jobs")
    with pytest.raises((TypeError, ValueError)):
        rig.pump(mailbox, print, **options)


@pytest.mark.parametrize(
    "options", [{"priority": "1"}, {"priority": 2**70}, {"ttl_ns": "1"}, {"ttl_ns": 2**70}], ids=str
)
def test_the_options_of_a_route(rig, options):
    with pytest.raises((TypeError, OverflowError)):
        rig.core.Route(rig.router, "jobs", **options)
