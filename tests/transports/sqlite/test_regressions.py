"""What the simulation has found, as small as it can be told."""

from __future__ import annotations

import pytest

from tests.transports.sqlite.twins import Twins, run


def agree(*ops, make=Twins):
    told = run(ops, make)
    if told is not None:
        pytest.fail(told, pytrace=False)


def publish(channel="b", **fields):
    return ("commit", 0, [{"channel": channel, **fields}], [])


def test_an_inbox_that_is_opened_again_is_empty():
    agree(("inbox", 0), ("commit", 0, [{"inbox": 0, "n": 0}], []), ("inbox", 0), ("take", 0))


def test_a_broadcast_that_leaves_takes_nothing_from_a_group():
    agree(
        ("join", 0, "g", ["b"], None),
        ("join", 1, None, ["b"], None),
        publish(n=0),
        ("leave", 1, None),
        ("fetch", 0, "g", [1], None),
    )


def test_a_broadcast_that_settles_after_its_end_takes_nothing_from_a_group():
    agree(
        ("join", 0, "g", ["b"], None),
        ("join", 1, None, ["b"], None),
        publish(n=0),
        ("fetch", 1, None, [1], None),
        ("leave", 1, None),
        ("commit", 1, [], [(0, "ack", 0.0, False, None)]),
        ("fetch", 0, "g", [1], None),
    )


def test_what_a_removed_group_alone_wanted_goes_with_it():
    agree(("join", 2, "h", ["b"], None), publish(n=0), ("remove_group", "h", "b"))
    agree(publish("a.x", n=0), ("join", 1, "h", ["a.*"], None), ("remove_group", "h", "a.x"))


def test_an_idempotency_key_and_an_id_that_are_the_same_are_one_message():
    agree(publish(n=0), publish(n=3, dedup_key="m0"))
    agree(publish(n=0, dedup_key="m1"), publish(n=1))


def test_an_id_is_not_found_at_the_message_that_has_it_for_its_key():
    agree(publish(n=1, dedup_key="m0"), ("browse", "b", ("id", 0), 10), ("browse", "b", ("id", 1), 10))


def test_an_update_whose_start_cannot_be_found_changes_nothing():
    agree(
        ("commit", 0, [{"channel": "c.d.e", "n": 2}, {"channel": "a.x", "n": 3}], []),
        ("join", 0, "h", ["a.x", "c.>"], ("id", 3)),
        ("join", 0, None, ["a.x", "c.>"], ("id", 3)),
    )


def test_a_start_is_looked_for_only_where_a_position_is_new():
    agree(publish("a.y", n=0), ("declare", "c.d.e", {}), ("join", 0, "g", [">", "c.>"], ("id", 0)))


def test_what_waits_for_a_first_group_and_may_be_taken_by_retention_is_counted_once():
    agree(publish(n=0), ("declare", "b", {"retention": {"bytes": 6}}), ("join", 2, None, ["b"], None))
    agree(publish(n=0), ("declare", "b", {"retention": {"count": 9}}), ("declare", "b", {}))


def test_what_the_first_group_does_not_want_needs_no_slot_any_more():
    agree(("declare", "b", {"retention": {"count": 9}}), publish(n=0), ("join", 2, "g", ["b"], "new"))


def test_retention_takes_what_waits_for_a_first_group_while_a_broadcast_is_there():
    agree(publish(n=0), publish(n=1), ("join", 2, None, ["b"], None), ("declare", "b", {"retention": {"count": 1}}))


def test_a_broadcast_that_is_over_counts_what_it_has_in_flight():
    agree(
        ("join", 0, None, ["b"], None),
        publish(n=0),
        ("fetch", 0, None, [1], None),
        publish(n=1),
        ("leave", 0, None),
        ("commit", 0, [], [(0, "ack", 0.0, False, None)]),
    )


def test_a_broadcast_that_seeks_leaves_what_waits_for_a_first_group():
    agree(publish(n=3), ("join", 0, None, ["b"], None), ("seek", 0, None, 0, "new"))


def test_a_reader_of_a_removed_group_may_seek():
    agree(("join", 2, "h", ["*"], None), ("remove_group", "h", None), ("seek", 2, "h", 0, "new"))
    agree(
        ("join", 2, "h", ["*"], None),
        ("remove_group", "h", None),
        ("join", 1, "h", ["b"], None),
        publish(n=0),
        ("seek", 2, "h", 0, "new"),
    )


def test_a_delayed_message_is_forgotten_when_all_have_settled_it_wherever_their_cursors_are():
    agree(
        ("join", 0, "g", ["b"], None),
        ("join", 0, "h", ["b"], None),
        publish(n=0, delay=0.5),
        ("wait", 1.0),
        ("fetch", 0, "g", [1], None),
        ("fetch", 0, "h", [1], None),
        ("commit", 0, [], [(0, "ack", 0.0, False, None), (1, "ack", 0.0, False, None)]),
    )


def test_a_delayed_message_that_was_settled_and_kept_does_not_come_again():
    agree(
        ("declare", "b", {"retention": {"count": 9}}),
        ("join", 0, "g", ["b"], None),
        publish(n=0, delay=0.5),
        ("wait", 1.0),
        ("fetch", 0, "g", [1], None),
        ("commit", 0, [], [(0, "ack", 0.0, False, None)]),
        ("fetch", 0, "g", [1], None),
    )


def test_a_broadcast_that_is_over_holds_only_the_keys_of_what_it_has_in_flight():
    agree(
        ("join", 2, None, ["b"], None),
        publish(n=0, key="l"),
        publish(n=1),
        ("fetch", 2, None, [2], None),
        ("commit", 2, [], [(1, "nack", 0.0, False, None)]),
        ("leave", 2, None),
    )


def test_what_retention_takes_during_a_commit_makes_room_in_it():
    agree(
        ("declare", "b", {"capacity": 3, "retention": {"count": 2}}),
        ("commit", 1, [{"channel": "b", "n": n} for n in range(6)], []),
    )


def test_when_one_is_dropped_whose_turn_it_was_with_a_key_the_next_one_has_it():
    keyed = [{"channel": "b", "n": n, "key": "k"} for n in range(3)]
    agree(
        ("declare", "b", {"capacity": 3, "overflow": "drop_old"}),
        ("join", 0, "g", ["b"], None),
        ("commit", 0, keyed, []),
        ("fetch", 0, "g", [5], None),
        ("commit", 0, [], [(0, "ack", 0.0, False, None)]),
        ("commit", 0, [{"channel": "b", "n": 4}, {"channel": "b", "n": 5}], []),
        ("fetch", 0, "g", [5], None),
    )


def test_tidying_stops_when_it_has_done_as_much_as_it_may():
    patterns = [">"]
    agree(
        ("join", 1, None, patterns, None),
        publish("a.x", n=0),
        publish("a.y", n=1),
        publish("b", n=2),
        ("leave", 1, None),
        make=lambda: Twins(most=1, beside=1),
    )


def test_what_was_let_go_at_its_time_may_be_dropped_also_when_the_wall_clock_is_set_back():
    agree(
        ("declare", "b", {"capacity": 1, "overflow": "drop_old"}),
        ("join", 0, "g", ["b"], None),
        publish(n=0, not_before=1.0),
        ("wait", 3.0),
        ("jump", -7200.0),
        publish(n=1),
        ("fetch", 0, "g", [5], None),
    )


def test_a_refused_publish_leaves_the_way_to_an_earlier_message_of_that_id():
    agree(
        publish(n=1, dedup_key="m0"),
        ("declare", "b", {"capacity": 1}),
        publish(n=1, dedup_key="e"),
        ("browse", "b", ("id", 1), 100),
    )


def test_what_is_dropped_for_a_newer_one_costs_no_other_message_its_retention():
    agree(
        ("declare", "b", {"capacity": 3, "overflow": "drop_old", "retention": {"count": 1}}),
        ("join", 1, "g", ["b"], None),
        ("commit", 0, [{"channel": "b", "n": 0}, {"channel": "b", "n": 1}, {"channel": "b", "n": 2}], []),
        ("seek", 1, "g", 0, ("id", 1)),
        ("commit", 2, [{"channel": "b", "n": 3}, {"channel": "b", "n": 4}], []),
    )


def test_what_a_broadcast_leaves_goes_by_age_whether_it_had_taken_it_or_not():
    agree(
        ("join", 1, None, ["*"], None),
        publish(n=0),
        ("declare", "b", {"retention": {"bytes": 6}}),
        publish(n=1, size=4, not_before=1.0),
        publish(n=2, size=4, not_before=1.0),
        ("kill", 1),
    )
