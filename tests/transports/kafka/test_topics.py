"""Names of channels within Kafka's rules, both ways."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralcore.messaging.errors import InvalidChannelName
from neuralcore_transports.kafka.topics import MAX_LENGTH, Topics, band_of

TOPICS = Topics("nc")

names_of_channels = st.text(min_size=1, max_size=20).filter(
    lambda text: not any(0xD800 <= ord(c) < 0xE000 for c in text)
)


@given(names_of_channels)
def test_a_channel_comes_back_from_its_topic(channel):
    topic = TOPICS.topic(channel)
    assert re.fullmatch(r"[a-zA-Z0-9._-]{1,249}", topic)
    assert TOPICS.channel(topic) == channel


def test_what_names_look_like():
    assert TOPICS.topic("task.run") == "nc.task.run"
    assert TOPICS.topic("_dlq.task_run") == "nc.__dlq.task__run"
    assert TOPICS.topic("café") == "nc.caf_c3_a9"
    assert Topics("").topic("task.run") == "task.run"


@pytest.mark.parametrize(
    "topic", ["other.task", "nc.", "nc.bad_ff", "nc.half_c", "nc.upper_C3_A9", "nc.a_61", "nc.x_c3"]
)
def test_topics_of_others_are_no_channels(topic):
    assert TOPICS.channel(topic) is None


def test_what_is_too_long_is_refused():
    assert len(TOPICS.topic("x" * (MAX_LENGTH - 3))) == MAX_LENGTH
    with pytest.raises(InvalidChannelName, match="250 characters"):
        TOPICS.topic("x" * (MAX_LENGTH - 2))


@given(names_of_channels, st.sets(st.integers(0, 255), max_size=6).map(sorted))
def test_a_channel_s_bands_have_topics_of_their_own_of_which_one_is_the_channel_s(channel, bounds):
    topics = TOPICS.bands(channel, bounds)
    assert len(topics) == max(1, len(bounds)) == len(set(topics))
    assert all(re.fullmatch(r"[a-zA-Z0-9._-]{1,249}", topic) for topic in topics)
    assert [TOPICS.channel(topic) for topic in topics if TOPICS.channel(topic) is not None] == [channel]


@given(names_of_channels, names_of_channels, st.sets(st.integers(0, 255), max_size=4).map(sorted))
def test_no_band_is_another_channel_s(one, other, bounds):
    if one != other:
        assert not {*TOPICS.bands(one, bounds)} & {*TOPICS.bands(other, bounds)}


def test_what_bands_look_like():
    assert TOPICS.bands("task.run", ()) == ["nc.task.run"]
    assert TOPICS.bands("task.run", (0,)) == ["nc.task.run"]
    assert TOPICS.bands("task.run", (0, 50, 100)) == ["nc.task.run_p0", "nc.task.run", "nc.task.run_p100"]
    assert TOPICS.bands("task.run", (0, 51)) == ["nc.task.run", "nc.task.run_p51"]


def test_bands_that_are_too_long_are_refused_even_if_the_channel_is_not():
    channel = "x" * (MAX_LENGTH - 3)
    assert len(TOPICS.topic(channel)) == MAX_LENGTH
    with pytest.raises(InvalidChannelName, match=r"_p0 is longer than the 249"):
        TOPICS.bands(channel, (0, 50))


@given(st.sets(st.integers(0, 255)).map(lambda bounds: sorted({0, *bounds})), st.integers(0, 255))
def test_a_priority_is_in_the_band_that_begins_with_it_or_before(bounds, priority):
    band = band_of(bounds, priority)
    assert bounds[band] <= priority
    assert band + 1 == len(bounds) or priority < bounds[band + 1]


@pytest.mark.parametrize(("bounds", "priority"), [((), 0), ((), 255), ((0,), 255), ((60, 100), 3)])
def test_without_a_band_for_it_it_is_in_the_first(bounds, priority):
    assert band_of(bounds, priority) == 0


@pytest.mark.parametrize("prefix", ["", "nc", "a-b"])
def test_the_bus_s_own_topics_are_no_channels(prefix):
    topics = Topics(prefix)
    dot = f"{prefix}." if prefix else ""
    assert (topics.registry, topics.inboxes) == (f"{dot}_registry", f"{dot}_inboxes")
    assert topics.group("workers") == f"{dot}workers"
    assert topics.channel(topics.registry) is None
    assert topics.channel(topics.inboxes) is None


@given(names_of_channels, st.sets(st.integers(0, 255), max_size=4).map(sorted))
def test_and_no_channel_s_topic_is_one_of_them(channel, bounds):
    assert not {TOPICS.registry, TOPICS.inboxes} & {*TOPICS.bands(channel, bounds)}


@pytest.mark.parametrize("channel", ["_registry", "_inboxes", "_inboxes.x", "registry"])
def test_not_even_one_that_is_called_so(channel):
    assert not {TOPICS.registry, TOPICS.inboxes} & {TOPICS.topic(channel)}


@given(names_of_channels, names_of_channels, st.sampled_from(["nc", "nc-1", "a", "b"]))
def test_buses_with_different_prefixes_do_not_see_each_other(one, other, prefix):
    if prefix != "nc":
        assert TOPICS.topic(one) != Topics(prefix).topic(other)
        assert TOPICS.channel(Topics(prefix).topic(other)) is None
