import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralcore.messaging.errors import InvalidChannelName
from neuralcore.messaging.names import (
    MAX_LENGTH,
    dead_letter_channel,
    is_pattern,
    is_reserved,
    matches,
    near_misses,
    validate_channel,
    validate_pattern,
)

TOKENS = st.sampled_from(["a", "b", "c", "_a"])
CHANNELS = st.lists(TOKENS, min_size=1, max_size=5).map(".".join)
PATTERNS = st.builds(
    lambda tokens, rest: ".".join([*tokens, *rest]),
    st.lists(st.one_of(TOKENS, st.just("*")), min_size=1, max_size=4),
    st.sampled_from([[], [">"]]),
)


@pytest.mark.parametrize(
    "name", ["a", "memory.write", "a-b.c_d", "Überweisung.日本", "a._b", "a:b/c", "x" * MAX_LENGTH]
)
def test_a_channel(name: str) -> None:
    assert validate_channel(name) == name
    assert validate_pattern(name) == name


BAD_ANYWHERE = [
    ("", "empty"),
    (".", "empty token"),
    (".a", "empty token"),
    ("a.", "empty token"),
    ("a..b", "empty token"),
    ("a b", "' ' at position 1"),
    ("a\tb", r"'\t' at position 1"),
    ("a\n", r"'\n' at position 1"),
    ("a\x00b", r"'\x00' at position 1"),
    ("a\x7f", r"'\x7f' at position 1"),
    ("a\u2003b", "at position 1"),
    ("a\ud800", "at position 1"),
    ("x" * (MAX_LENGTH + 1), "256 characters; 255 are allowed"),
    (None, "a name is a str, not NoneType"),
    (b"a", "a name is a str, not bytes"),
]


@pytest.mark.parametrize(("name", "reason"), BAD_ANYWHERE)
@pytest.mark.parametrize("validate", [validate_channel, validate_pattern])
def test_what_is_refused_as_channel_and_as_pattern(validate, name, reason: str) -> None:
    with pytest.raises(InvalidChannelName) as caught:
        validate(name)
    assert caught.value.name == name
    assert reason in caught.value.reason


@pytest.mark.parametrize("name", ["*", ">", "a.*", "a.>", "a*", "a.b>c"])
def test_publishing_takes_no_wildcards(name: str) -> None:
    with pytest.raises(InvalidChannelName, match="wildcard"):
        validate_channel(name)


@pytest.mark.parametrize("pattern", ["*", ">", "a.*", "a.>", "*.b.*", "a.*.>", "_dlq.>", "_dlq.a.b"])
def test_a_pattern(pattern: str) -> None:
    assert validate_pattern(pattern) == pattern


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("a*", "the wildcard '*' in 'a*' must be a token of its own"),
        ("a.b>", "the wildcard '>' in 'b>' must be a token of its own"),
        ("**", "the wildcard '*' in '**' must be a token of its own"),
        (">.a", "the wildcard '>' may only be the last token"),
        ("a.>.>", "the wildcard '>' may only be the last token"),
    ],
)
def test_a_bad_pattern(pattern: str, reason: str) -> None:
    with pytest.raises(InvalidChannelName) as caught:
        validate_pattern(pattern)
    assert caught.value.reason == reason


@pytest.mark.parametrize("name", ["_dlq.a", "_inbox.1", "_"])
def test_reserved_names_are_for_the_bus_to_publish_to(name: str) -> None:
    assert is_reserved(name)
    with pytest.raises(InvalidChannelName, match="the bus's own"):
        validate_channel(name)
    assert validate_channel(name, internal=True) == name
    assert validate_pattern(name) == name


def test_the_longest_channel_still_has_a_dead_letter_channel() -> None:
    longest = "x" * MAX_LENGTH
    assert validate_channel(dead_letter_channel(longest), internal=True) == f"_dlq.{longest}"
    with pytest.raises(InvalidChannelName, match="256 characters"):
        validate_channel(dead_letter_channel(longest + "x"), internal=True)


@pytest.mark.parametrize(
    ("pattern", "channel", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a", "a.b", False),
        ("a.b", "a", False),
        ("*", "a", True),
        ("*", "a.b", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("a.*.c", "a.b.c", True),
        (">", "a", True),
        (">", "a.b.c", True),
        ("a.>", "a", False),
        ("a.>", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.*.>", "a.b", False),
        ("a.*.>", "a.b.c", True),
        ("a.>", "b.a", False),
        (">", "_dlq.a", False),
        ("*.a", "_dlq.a", False),
        ("*.>", "_dlq.a", False),
        ("_dlq.*", "_dlq.a", True),
        ("_dlq.>", "_dlq.a.b", True),
        ("a.*", "a._b", True),
    ],
)
def test_matching(pattern: str, channel: str, expected: bool) -> None:
    assert matches(pattern, channel) is expected


@given(pattern=PATTERNS, channel=CHANNELS)
def test_matching_agrees_with_a_regular_expression(pattern: str, channel: str) -> None:
    parts = [{"*": r"[^.]+", ">": r".+"}.get(token, re.escape(token)) for token in pattern.split(".")]
    expected = re.fullmatch(r"\.".join(parts), channel) is not None
    if channel.startswith("_") and pattern[0] in "*>":
        expected = False
    assert matches(pattern, channel) is expected


@given(st.text(max_size=20))
def test_whatever_passes_as_a_channel_is_sound(name: str) -> None:
    try:
        validate_channel(name)
    except InvalidChannelName:
        return
    assert name.encode().decode() == name
    assert all(name.split("."))
    assert not set(name) & set("*> \t\r\n\0")
    assert not name.startswith("_")
    assert matches(name, name)


@given(CHANNELS)
def test_every_channel_is_a_pattern_that_matches_exactly_itself(channel: str) -> None:
    assert not is_pattern(channel)
    assert matches(validate_pattern(channel), channel)
    assert not matches(channel, f"{channel}.x")


@pytest.mark.parametrize("pattern", ["*", "a.>", "a.*.b"])
def test_is_pattern(pattern: str) -> None:
    assert is_pattern(pattern)


def test_near_misses_are_few_and_best_first() -> None:
    known = ["orders.new", "orders.news", "orders.old", "payments", "orders.now", "orders.net"]
    assert near_misses("orders.neww", known)[0] == "orders.new"
    assert len(near_misses("orders.neww", known)) == 3
    assert near_misses("zzz", known) == ()
    assert near_misses("orders.neww", reversed(known)) == near_misses("orders.neww", known)
