"""Names of channels within Kafka's rules, both ways."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralcore.messaging.errors import InvalidChannelName
from neuralcore_transports.kafka.topics import MAX_LENGTH, Topics

TOPICS = Topics("nc")


@given(st.text(min_size=1, max_size=20).filter(lambda text: not any(0xD800 <= ord(c) < 0xE000 for c in text)))
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
