"""Who holds a key, and which messages came twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from neuralcore_transports.kafka.dedup import Seen
from neuralcore_transports.kafka.keys import Keys


def test_a_key_has_one_holder():
    keys = Keys()
    assert keys.admits("a", 1)
    keys.hold("a", 1)
    assert keys.admits("a", 1)
    assert not keys.admits("a", 2)
    assert keys.admits("b", 2)


def test_messages_without_a_key_hold_nobody_up():
    keys = Keys()
    keys.hold(None, 1)
    assert keys.admits(None, 2)
    assert keys.free(None, 1) is None


def test_an_empty_key_is_a_key():
    keys = Keys()
    keys.hold("", 1)
    assert not keys.admits("", 2)


def test_who_waits_comes_in_the_order_of_its_rank_one_for_each_time_the_key_is_free():
    keys = Keys()
    keys.hold("a", 1)
    for rank in [(9, 2), (3, 3), (5, 5)]:
        keys.park("a", rank)
    assert keys.parked == 3
    found = []
    holder = 1
    while (following := keys.free("a", holder)) is not None:
        found.append(following)
        holder = following[1]
        keys.hold("a", holder)
    assert found == [(3, 3), (5, 5), (9, 2)]
    assert keys.parked == 0
    assert keys.admits("a", 7)


def test_only_the_holder_frees_a_key():
    keys = Keys()
    keys.hold("a", 1)
    keys.park("a", (2, 2))
    assert keys.free("a", 2) is None
    assert not keys.admits("a", 2)
    assert keys.free("a", 1) == (2, 2)
    assert keys.free("a", 1) is None, "once"


# Duplicates

SECOND = 10**9


def test_another_message_with_the_same_id_is_a_duplicate():
    seen = Seen(60 * SECOND, 100)
    assert not seen.again("m", 1, 0)
    assert seen.again("m", 2, 0)
    assert seen.again("m", 3, SECOND)
    assert not seen.again("n", 4, 0)


def test_the_same_message_read_again_is_none():
    seen = Seen(60 * SECOND, 100)
    assert not seen.again("m", 1, 0)
    assert not seen.again("m", 1, 1)
    assert seen.again("m", 2, 2)
    assert not seen.again("m", 1, 3), "nor after a duplicate was"


def test_ids_are_known_for_the_window_and_no_longer():
    seen = Seen(60 * SECOND, 100)
    assert not seen.again("m", 1, 0)
    assert seen.again("m", 2, 60 * SECOND)
    assert not seen.again("m", 3, 60 * SECOND + 1)
    assert seen.again("m", 4, 120 * SECOND), "the next one counts then"


def test_a_duplicate_makes_the_window_no_longer():
    seen = Seen(60 * SECOND, 100)
    assert not seen.again("m", 1, 0)
    assert seen.again("m", 2, 50 * SECOND)
    assert not seen.again("m", 3, 70 * SECOND)


def test_so_many_ids_at_most_and_the_oldest_go():
    seen = Seen(60 * SECOND, 2)
    for offset, id in enumerate("abc"):
        assert not seen.again(id, offset, 0)
    assert seen.again("c", 8, 0)
    assert not seen.again("a", 9, 0)


@given(
    st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 12), st.integers(0, 40)), max_size=60),
    st.integers(1, 6),
)
def test_nothing_is_a_duplicate_that_was_not_seen_with_another_offset_within_the_window(calls, count):
    seen, now, history = Seen(60, count), 0, []
    for id, offset, later in calls:
        now += later
        if seen.again(id, offset, now):
            assert any(i == id and o != offset and now - t <= 60 for i, o, t in history)
        history.append((id, offset, now))
