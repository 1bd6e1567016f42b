"""Channels, groups and where these start: what the log's order decides."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralcore_transports.kafka.registry import (
    FORMAT,
    Attached,
    Change,
    Channel,
    Forgotten,
    Format,
    Position,
    Registry,
    Removed,
    Sought,
    Wanted,
    read,
    written,
)

HERE = ((7, 8),)
THERE = ((1, 2),)


def after(*changes: Change, first: int = 0) -> Registry:
    """A client that has read them."""
    registry = Registry()
    for offset, change in enumerate(changes, first):
        registry.apply(offset, read(written(change)))
    return registry


NAMES = ["a", "a.b", "a.c", "_dlq.a"]
PATTERNS = [*NAMES, "*", "a.*", ">"]
GROUPS = ["g", "h"]
starts = st.sampled_from([HERE, THERE, ((0,), (3,))])
names, groups = st.sampled_from(NAMES), st.sampled_from(GROUPS)
changes = st.one_of(
    st.builds(Format, st.integers(0, 3)),
    st.builds(Channel, names, st.integers(1, 3), st.sampled_from([(), (0, 50)]), age=st.none() | st.floats(1, 9)),
    st.builds(Removed, names),
    st.builds(Attached, groups, names, starts, st.none() | starts),
    st.builds(Sought, groups, names, starts),
    st.builds(Wanted, groups, st.sampled_from(PATTERNS)),
    st.builds(Forgotten, groups, st.none() | names),
)


def seen_of(registry: Registry) -> object:
    return (
        registry.channels,
        {(group, name): registry.position(group, name) for group in GROUPS for name in NAMES},
        {name: sorted(registry.positions(name)) for name in NAMES},
        {(group, pattern): registry.wants(group, pattern) for group in GROUPS for pattern in PATTERNS},
    )


@given(changes)
def test_every_change_comes_back_from_the_log(change):
    assert read(written(change)) == change


def test_of_several_formats_the_first_one_counts():
    assert after().format is None
    assert after(Channel("a", 1), Format(FORMAT), Format(FORMAT + 1)).format == FORMAT


def test_who_counts_partitions_says_nothing_else_of_a_channel():
    """It had read what somebody has changed meanwhile."""
    registry = after(
        Channel("a", 1), Channel("a", 4, age=9.0, dedup_window=5.0), Channel("a", 6, implied=True), Removed("b")
    )
    assert registry.channels["a"] == Channel("a", 6, age=9.0, dedup_window=5.0)
    registry.apply(9, Channel("a", 2, implied=True))
    assert registry.channels["a"].partitions == 6


@settings(max_examples=200, deadline=None)
@given(st.lists(changes, max_size=40), st.randoms(use_true_random=False))
def test_two_clients_that_have_read_the_same_agree_whatever_they_were_asked_meanwhile(log, random):
    asked, other = Registry(), after(*log)
    for offset, change in enumerate(log):
        asked.apply(offset, change)
        if random.random() < 0.5:
            seen_of(asked)
    assert seen_of(asked) == seen_of(other)


@settings(max_examples=200, deadline=None)
@given(st.lists(changes, max_size=40))
def test_a_group_is_on_a_channel_exactly_if_it_has_a_position_there(log):
    registry = after(*log)
    for name in NAMES:
        on = list(registry.positions(name))
        assert len(set(on)) == len(on)
        for group in GROUPS:
            has = registry.position(group, name) is not None
            assert has == (name in registry.channels and group in on)


@settings(max_examples=200, deadline=None)
@given(st.lists(changes, max_size=40))
def test_a_position_moves_only_by_a_change_that_says_so_and_its_epoch_with_it(log):
    registry = Registry()
    before: dict[tuple[str, str], Position | None] = {(group, name): None for group in GROUPS for name in NAMES}
    for offset, change in enumerate(log):
        registry.apply(offset, change)
        for (group, name), old in before.items():
            new = registry.position(group, name)
            if new != old and new is not None and old is not None:
                assert isinstance(change, Sought | Forgotten)
                assert change.group == group
                assert change.channel == name
                assert new.epoch == offset
            before[group, name] = new


GARBAGE = {
    b"": "truncated",
    b"hello": "malformed",
    b"\xff": "malformed",
    b"null": "Expected `object`, got `null`",
    b"[]": "Expected `object`, got `array`",
    b"{}": "missing required field `type`",
    b'{"type":"other"}': "Invalid value 'other'",
    b'{"type":"channel","channel":3}': "Expected `str`, got `int`",
}


@pytest.mark.parametrize(("data", "says"), GARBAGE.items(), ids=map(str, GARBAGE))
def test_what_is_no_change_is_a_value_error(data, says):
    assert issubclass(msgspec.DecodeError, ValueError)
    with pytest.raises(msgspec.DecodeError, match=says):
        read(data)


@given(st.binary() | st.recursive(st.none() | st.text() | st.floats(), st.lists).map(msgspec.json.encode))
def test_whatever_it_is(data):
    with pytest.raises(msgspec.DecodeError):
        read(data)


def test_even_if_it_is_very_deep():
    with pytest.raises(ValueError, match="nested too deeply"):
        read(b'{"type":"removed","channel":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def test_what_a_later_version_adds_to_a_change_is_no_error():
    assert read(b'{"type":"removed","channel":"a","why":["x"]}') == Removed("a")


# Where groups start


def test_a_channel_s_first_group_starts_at_the_beginning_and_later_ones_at_the_end():
    registry = after(Channel("a", 2), Attached("g", "a", HERE), Attached("h", "a", HERE))
    assert registry.position("g", "a") == Position(1, None)
    assert registry.position("h", "a") == Position(2, HERE)
    assert list(registry.positions("a")) == ["g", "h"]


def test_the_log_decides_who_was_first_not_who_asked_first():
    registry = after(Channel("a", 2), Attached("h", "a", HERE), Attached("g", "a", HERE))
    assert registry.position("h", "a") == Position(1, None)
    assert registry.position("g", "a") == Position(2, HERE)


def test_a_group_that_says_where_starts_there_first_or_not():
    registry = after(Channel("a", 2), Attached("g", "a", HERE, THERE), Attached("h", "a", HERE, THERE))
    assert registry.position("g", "a") == Position(1, THERE)
    assert registry.position("h", "a") == Position(2, THERE)


def test_after_one_that_said_where_nobody_is_the_first():
    registry = after(Channel("a", 2), Attached("g", "a", HERE, THERE), Attached("h", "a", HERE))
    assert registry.position("h", "a") == Position(2, HERE)


def test_one_that_has_the_channel_by_a_pattern_was_there_before_too():
    registry = after(Wanted("g", "*"), Channel("a", 2), Attached("h", "a", HERE))
    assert registry.position("g", "a") == Position(1, None)
    assert registry.position("h", "a") == Position(2, HERE)


def test_a_group_that_has_a_position_keeps_it():
    registry = after(Channel("a", 2), Attached("g", "a", HERE, THERE), Attached("g", "a", ((90, 90),)))
    assert registry.position("g", "a") == Position(1, THERE)


def test_also_one_by_a_pattern():
    registry = after(Wanted("g", "*"), Channel("a", 2), Attached("g", "a", HERE, THERE))
    assert registry.position("g", "a") == Position(1, None)


def test_nobody_is_on_a_channel_that_is_not_there():
    registry = after(Attached("g", "a", HERE), Sought("g", "a", THERE), Removed("a"), Forgotten("g", "a"))
    assert registry.position("g", "a") is None
    assert registry.covered("a") == []


def test_a_channel_that_is_declared_again_moves_nobody():
    registry = after(Wanted("g", "a"), Channel("a", 2), Attached("h", "a", HERE), Channel("a", 4, age=60.0))
    assert registry.channels["a"] == Channel("a", 4, age=60.0)
    assert registry.channels["a"].kept
    assert registry.position("g", "a") == Position(1, None)
    assert registry.position("h", "a") == Position(2, HERE)


def test_partitions_and_bands_that_came_later_start_at_their_beginning():
    position = Position(1, ((7, 8), (9,)))
    assert [position.start(0, n) for n in range(3)] == [7, 8, 0]
    assert [position.start(1, n) for n in range(2)] == [9, 0]
    assert position.start(2, 0) == 0
    assert Position(1, None).start(0, 0) == 0


# Patterns


def test_a_pattern_picks_up_channels_that_come_later_from_their_beginning():
    registry = after(Wanted("g", "a.*"), Channel("a.b", 1), Channel("a.c", 1), Channel("b", 1), Channel("a.b.c", 1))
    assert registry.position("g", "a.b") == Position(1, None)
    assert registry.position("g", "a.c") == Position(2, None)
    assert registry.position("g", "b") is None
    assert registry.position("g", "a.b.c") is None
    assert {each.channel for each in registry.covered("a.*")} == {"a.b", "a.c"}
    assert registry.wants("g", "a.*")
    assert not registry.wants("g", "a.b")


def test_also_the_plain_name_of_one_that_is_not_there_yet():
    registry = after(Wanted("g", "a"), Channel("a", 1), Channel("a.b", 1))
    assert registry.position("g", "a") == Position(1, None)
    assert registry.position("g", "a.b") is None


def test_no_leading_wildcard_covers_the_bus_s_own():
    registry = after(Wanted("g", ">"), Wanted("h", "_dlq.>"), Channel("_dlq.a", 1))
    assert registry.position("g", "_dlq.a") is None
    assert registry.position("h", "_dlq.a") == Position(2, None)


def test_a_pattern_leaves_where_the_group_was_attached_before():
    registry = after(Channel("a", 2), Attached("h", "a", HERE), Attached("g", "a", HERE), Wanted("g", "*"))
    assert registry.position("g", "a") == Position(2, HERE)


# Seeking


def test_seeking_is_another_epoch():
    registry = after(Channel("a", 2), Attached("g", "a", HERE), Sought("g", "a", THERE), Sought("g", "a", THERE))
    assert registry.position("g", "a") == Position(3, THERE), "though it is the same place"


def test_also_of_a_group_that_has_the_channel_by_a_pattern():
    registry = after(Wanted("g", "*"), Channel("a", 2), Channel("a2", 2), Sought("g", "a", THERE))
    assert registry.position("g", "a") == Position(3, THERE)
    assert registry.position("g", "a2") == Position(2, None)


def test_who_has_no_position_cannot_seek():
    assert after(Channel("a", 2), Sought("g", "a", THERE)).position("g", "a") is None


# Going


def test_a_channel_that_is_made_again_is_another_one():
    registry = after(
        Channel("a", 2), Attached("g", "a", HERE), Wanted("h", "*"), Attached("h", "a", HERE),
        Removed("a"), Channel("a", 1),
    )  # fmt: skip
    assert registry.position("g", "a") is None
    assert registry.position("h", "a") == Position(5, None)


def test_and_has_another_first_group():
    registry = after(Channel("a", 2), Attached("g", "a", HERE), Removed("a"), Channel("a", 2), Attached("h", "a", HERE))
    assert registry.position("h", "a") == Position(4, None)


def test_a_group_that_is_forgotten_is_nowhere():
    registry = after(
        Channel("a", 2), Channel("a.b", 2), Attached("g", "a", HERE), Wanted("g", "a.*"), Attached("h", "a", HERE),
        Forgotten("g"), Channel("a.c", 1),
    )  # fmt: skip
    assert [registry.position("g", name) for name in ("a", "a.b", "a.c")] == [None, None, None]
    assert registry.position("h", "a") == Position(4, HERE)
    assert not registry.wants("g", "a.*")


def test_a_group_that_is_forgotten_on_one_channel_stays_on_others():
    registry = after(
        Channel("a", 2), Channel("b", 2), Attached("g", "a", HERE), Wanted("g", "a"),
        Attached("g", "b", HERE), Wanted("g", "b"), Forgotten("g", "a"),
    )  # fmt: skip
    assert registry.position("g", "a") is None
    assert not registry.wants("g", "a")
    assert registry.position("g", "b") == Position(4, None)


def test_if_a_pattern_covers_the_channel_still_it_begins_again():
    registry = after(Wanted("g", "*"), Channel("a", 2), Forgotten("g", "a"))
    assert registry.position("g", "a") == Position(2, None)


def test_a_group_that_comes_back_has_another_epoch():
    registry = after(Channel("a", 2), Attached("g", "a", HERE), Forgotten("g", "a"), Attached("g", "a", HERE))
    assert registry.position("g", "a") == Position(3, None)


def test_also_one_that_comes_back_by_a_pattern():
    """Its old commits, if they are still there, are not this position's."""
    log = [Channel("a", 2), Wanted("g", "*"), Forgotten("g"), Wanted("g", "*")]
    epochs = [position.epoch for n in (2, 4) if (position := after(*log[:n]).position("g", "a")) is not None]
    assert all(old != new for old, new in pairwise(epochs))


def test_forgetting_who_is_not_there_is_no_error():
    registry = after(Forgotten("g"), Forgotten("g", "a"), Removed("a"), Channel("a", 1), Forgotten("g", "a"))
    assert registry.position("g", "a") is None


# Channels that somebody needed, and that somebody else had declared


def test_a_channel_that_is_only_needed_leaves_one_that_was_declared_as_it_is():
    declared, needed = Channel("a", 4, age=60.0, dedup_window=5.0), Channel("a", 2, implied=True)
    registry = Registry()
    for offset, change in enumerate([declared, needed]):
        registry.apply(offset, change)
    assert registry.channels["a"] == declared
    registry.apply(2, Channel("a", 4, age=90.0))
    assert registry.channels["a"].age == 90.0


def test_one_that_is_needed_is_there_until_somebody_declares_it():
    registry = Registry()
    registry.apply(0, Channel("a", 8, implied=True))
    assert registry.channels["a"] == Channel("a", 8)
    registry.apply(1, Channel("a", 8, count=10))
    assert registry.channels["a"].count == 10
