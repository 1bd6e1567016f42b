"""Mailbox: lower rank first, first in first out inside a rank."""

from __future__ import annotations

import random

import pytest


def fill(rig, mailbox, *ranks):
    for number, rank in enumerate(ranks):
        mailbox.offer(rig.message((rank, number), priority=rank))


def test_a_lower_rank_comes_first(rig, drain):
    mailbox = rig.mailbox()
    fill(rig, mailbox, 100, 0, 50, 255, 25)
    assert [rank for rank, _ in drain(mailbox)] == [0, 25, 50, 100, 255]


def test_inside_a_rank_the_first_in_is_the_first_out(rig, drain):
    mailbox = rig.mailbox()
    fill(rig, mailbox, *[50] * 100)
    assert [number for _, number in drain(mailbox)] == list(range(100))


@pytest.mark.parametrize("seed", range(5))
def test_any_mixture_comes_out_sorted_and_stable(rig, drain, seed):
    mailbox = rig.mailbox()
    rng = random.Random(seed)
    ranks = [rng.choice([0, 1, 49, 50, 51, 254, 255]) for _ in range(200)]
    fill(rig, mailbox, *ranks)
    taken = drain(mailbox)
    assert taken == sorted(taken)
    assert len(taken) == 200


def test_a_more_urgent_newcomer_overtakes_what_is_queued(rig):
    mailbox = rig.mailbox()
    fill(rig, mailbox, 50, 50)
    assert mailbox.take().payload == (50, 0)
    mailbox.offer(rig.message("urgent", priority=0))
    assert mailbox.take().payload == "urgent"
    assert mailbox.take().payload == (50, 1)


@pytest.mark.parametrize("rank", [-(2**63), -1, 256, 10**9, 2**63 - 1])
def test_any_64_bit_rank_has_its_place(rig, drain, rank):
    mailbox = rig.mailbox()
    fill(rig, mailbox, 0, rank, 255, rank)
    taken = drain(mailbox)
    assert taken == sorted(taken)


def test_nothing_comes_from_an_empty_mailbox(rig):
    mailbox = rig.mailbox()
    assert mailbox.take() is None
    fill(rig, mailbox, 50)
    assert mailbox.take() is not None
    assert mailbox.take() is None


def test_depths_count_the_queued_by_rank_and_leave_empty_ranks_out(rig):
    mailbox = rig.mailbox()
    assert mailbox.depths() == {}
    fill(rig, mailbox, 50, 0, 50, 300)
    assert mailbox.depths() == {0: 1, 50: 2, 300: 1}
    mailbox.take()
    assert mailbox.depths() == {50: 2, 300: 1}


def test_the_most_relaxed_rank_is_that_of_the_least_urgent_queued_message(rig):
    mailbox = rig.mailbox()
    assert mailbox.most_relaxed() is None
    fill(rig, mailbox, 50, 100, 0)
    assert mailbox.most_relaxed() == 100
    mailbox.take()
    mailbox.take()
    assert mailbox.most_relaxed() == 100
    mailbox.take()
    assert mailbox.most_relaxed() is None


def test_take_relaxed_takes_the_newest_of_the_least_urgent_rank(rig):
    mailbox = rig.mailbox()
    fill(rig, mailbox, 100, 50, 100)
    assert mailbox.take_relaxed(50).payload == (100, 2)
    assert mailbox.take_relaxed(50).payload == (100, 0)
    assert mailbox.take_relaxed(50) is None
    assert mailbox.take_relaxed(49).payload == (50, 1)
    assert mailbox.take_relaxed(-1) is None


def test_what_take_relaxed_took_has_no_slot_and_is_not_in_flight(rig):
    mailbox = rig.mailbox("jobs", capacity=1, overflow="reject")
    rig.publish_nowait("jobs", "first", priority=100)
    message = mailbox.take_relaxed(0)
    assert message.payload == "first"
    assert (mailbox.stats().in_flight, mailbox.stats().delivered, mailbox.depth()) == (0, 0, 0)
    rig.publish_nowait("jobs", "second")
    assert mailbox.take().payload == "second"
    with pytest.raises(ValueError, match=message.id):
        mailbox.ack(message)


def test_what_take_relaxed_took_can_be_offered_again(rig):
    mailbox = rig.mailbox()
    fill(rig, mailbox, 100)
    mailbox.offer(mailbox.take_relaxed(0))
    assert mailbox.take().payload == (100, 0)


def test_clear_takes_out_all_that_is_not_in_flight_most_urgent_first(rig):
    mailbox = rig.mailbox("jobs")
    fill(rig, mailbox, 0, 100, 50)
    flying = mailbox.take()
    for key in (None, "a", "a"):
        mailbox.offer(rig.message("keyed" if key else "plain", priority=70, key=key))
    held = [mailbox.take() for _ in range(3)]
    assert [message.payload for message in held] == [(50, 2), "plain", "keyed"]
    assert mailbox.take().payload == (100, 1)
    mailbox.offer(rig.message("late", priority=200))
    rig.publish_nowait("jobs", "delayed", priority=10, delay=5)
    assert mailbox.take().payload == "late"
    mailbox.offer(rig.message("very late", priority=255))
    cleared = mailbox.clear()
    assert [message.payload for message in cleared] == ["delayed", "keyed", "very late"]
    assert mailbox.depth() == 0
    assert mailbox.take() is None
    mailbox.ack(flying)


def test_clear_frees_the_slots(rig):
    mailbox = rig.mailbox("jobs", capacity=2, overflow="reject")
    rig.publish_nowait("jobs", 1)
    rig.publish_nowait("jobs", 2, delay=1)
    assert len(mailbox.clear()) == 2
    rig.publish_nowait("jobs", 3)
    rig.publish_nowait("jobs", 4)
    assert mailbox.stats().queued == 2
    assert mailbox.promote() is None


def test_what_was_cleared_can_go_elsewhere(rig):
    mailbox, other = rig.mailbox("jobs"), rig.mailbox()
    rig.publish_nowait("jobs", "moves", key="k", headers={"h": "v"})
    [message] = mailbox.clear()
    other.offer(message)
    moved = other.take()
    assert (moved.payload, moved.key, dict(moved.headers)) == ("moves", "k", {"h": "v"})
    other.ack(moved)
    assert other.stats().acked == 1
