"""Clock: the system's clocks, or a manual one."""

from __future__ import annotations

import time

import pytest


def test_a_system_clock_reads_the_clocks_of_the_system(core):
    clock = core.Clock()
    assert clock.manual is False
    before = time.time_ns(), time.monotonic_ns()
    wall, monotonic = clock.time_ns(), clock.monotonic_ns()
    after = time.time_ns(), time.monotonic_ns()
    assert before[0] <= wall <= after[0]
    assert before[1] <= monotonic <= after[1]


def test_a_system_clock_never_runs_backwards(core):
    clock = core.Clock()
    readings = [clock.monotonic_ns() for _ in range(1000)]
    assert readings == sorted(readings)


def test_a_manual_clock_stands_still_where_it_was_set(core):
    clock = core.Clock(manual=True, time_ns=7, monotonic_ns=11)
    assert clock.manual is True
    assert [clock.time_ns(), clock.time_ns()] == [7, 7]
    assert [clock.monotonic_ns(), clock.monotonic_ns()] == [11, 11]


def test_a_manual_clock_begins_at_zero(core):
    clock = core.Clock(manual=True)
    assert (clock.time_ns(), clock.monotonic_ns()) == (0, 0)


def test_advance_moves_both_clocks_forward(core):
    clock = core.Clock(manual=True, time_ns=7, monotonic_ns=11)
    clock.advance(100)
    clock.advance(0)
    assert (clock.time_ns(), clock.monotonic_ns()) == (107, 111)


@pytest.mark.parametrize("step", [50, -5])
def test_jump_moves_only_the_wall_clock_either_way(core, step):
    clock = core.Clock(manual=True, time_ns=7, monotonic_ns=11)
    clock.jump(step)
    assert (clock.time_ns(), clock.monotonic_ns()) == (7 + step, 11)


def test_a_negative_step_is_refused(core):
    clock = core.Clock(manual=True)
    with pytest.raises(ValueError, match="-1"):
        clock.advance(-1)
    assert clock.monotonic_ns() == 0


@pytest.mark.parametrize("verb", ["advance", "jump"])
def test_a_system_clock_cannot_be_moved(core, verb):
    with pytest.raises(ValueError, match=verb):
        getattr(core.Clock(), verb)(1)


def test_its_options_are_keywords(core):
    with pytest.raises(TypeError):
        core.Clock(True)
