"""The names of keys, and what shares a slot."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.crc import key_slot

from neuralcore.messaging.names import DEAD_LETTER_PREFIX, validate_channel
from neuralcore_transports.redis.layout import Layout
from tests.transports.redis.clients import Member, envelope, new_prefix, opened, publish

layout = Layout("nc")


def valid(name: str) -> bool:
    try:
        validate_channel(name, internal=True)
    except ValueError:
        return False
    return True


channels = (
    st.lists(st.text("ab{}%7BD5_-é☃", min_size=1, max_size=6), min_size=1, max_size=4)
    .map(".".join)
    .filter(valid)
)  # fmt: skip
origins = channels.filter(lambda name: not name.startswith("_"))


@given(channels, st.sampled_from(["nc", "a.b-c_d", "x" * 64]))
@example("a}b", "nc")
@example("%7D", "nc")
@example("%257D", "nc")
@example("{}", "nc")
@example("_dlq.a{b}", "nc")
def test_a_channel_s_name_comes_back_from_its_base(channel, prefix):
    its = Layout(prefix)
    assert its.channel(its.base(channel)) == channel


@given(channels, channels)
def test_two_channels_have_two_bases(one, other):
    assert (one == other) == (layout.base(one) == layout.base(other))


@given(origins, st.integers(0, 255))
def test_a_channel_and_its_dead_letters_are_in_one_slot(channel, priority):
    keys = [
        f"{layout.base(channel)}:meta",
        layout.stream(channel, priority),
        layout.stream(DEAD_LETTER_PREFIX + channel, 50),
        f"{layout.base(DEAD_LETTER_PREFIX + channel)}:groups",
    ]
    assert len({key_slot(key.encode()) for key in keys}) == 1


@given(channels)
def test_the_slot_is_decided_by_the_name_alone(channel):
    (tag,) = re.findall(r"\{(.*?)\}", layout.base(channel))
    assert tag
    assert "{" not in tag


def test_channels_are_spread_over_the_slots():
    assert len({key_slot(layout.base(f"orders.{number}").encode()) for number in range(1000)}) > 900


def test_how_they_look():
    assert layout.base("orders.new") == "nc:{orders.new}"
    assert layout.base("_dlq.orders.new") == "nc:_dlq.{orders.new}"
    assert layout.stream("orders.new", 50) == "nc:{orders.new}:p:50"
    assert layout.registry == "nc:{registry}"


@pytest.mark.parametrize("channel", ["a{b}c", "a}b", "{", "%7D", "100%", "a.%25.b", "registry", "é☃", "_dlq.a}b"])
async def test_odd_names_on_a_server(redis_server, channel):
    async with opened(redis_server.url(), prefix=new_prefix()) as transport:
        member = await Member.of(transport, pattern=channel)
        await publish(transport, envelope("one", channel=channel, key="k"))
        assert [each.envelope.channel for each in await member.drain("one")] == [channel]
        assert await transport.channels() == [channel]
