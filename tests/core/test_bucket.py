"""TokenBucket: a rate limit."""

from __future__ import annotations

import math

import pytest

SECOND = 1_000_000_000


@pytest.fixture
def clock(core):
    return core.Clock(manual=True)


@pytest.mark.parametrize("name", ["rate", "burst"])
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan])
def test_rate_and_burst_are_positive_and_finite(core, clock, name, value):
    with pytest.raises(ValueError, match=name):
        core.TokenBucket(clock, **{"rate": 1.0, "burst": 1.0, name: value})


def test_a_burst_is_there_from_the_beginning_and_not_one_token_more(core, clock):
    bucket = core.TokenBucket(clock, 10.0, 3.0)
    assert [bucket.take() for _ in range(3)] == [0.0, 0.0, 0.0]
    assert bucket.take() > 0


def test_it_answers_the_seconds_until_the_tokens_would_be_there(core, clock):
    bucket = core.TokenBucket(clock, 10.0, 3.0)
    assert bucket.take(3.0) == 0.0
    assert bucket.take(2.0) == pytest.approx(0.2)


def test_a_refusal_takes_nothing(core, clock):
    bucket = core.TokenBucket(clock, 10.0, 3.0)
    assert bucket.take(2.0) == 0.0
    assert bucket.take(2.0) == pytest.approx(0.1)
    assert bucket.take(1.0) == 0.0


def test_whoever_waits_as_long_as_it_said_gets_the_tokens(core, clock):
    bucket = core.TokenBucket(clock, 3.0, 1.0)
    assert bucket.take() == 0.0
    clock.advance(math.ceil(bucket.take() * SECOND))
    assert bucket.take() == 0.0


def test_tokens_come_at_the_rate_and_never_exceed_the_burst(core, clock):
    bucket = core.TokenBucket(clock, 10.0, 3.0)
    assert bucket.take(3.0) == 0.0
    clock.advance(SECOND // 10)
    assert bucket.take() == 0.0
    assert bucket.take() > 0
    clock.advance(1000 * SECOND)
    assert [bucket.take() for _ in range(3)] == [0.0, 0.0, 0.0]
    assert bucket.take() > 0


def test_its_time_is_the_clock_that_never_jumps(core, clock):
    bucket = core.TokenBucket(clock, 10.0, 1.0)
    assert bucket.take() == 0.0
    clock.jump(1000 * SECOND)
    assert bucket.take() == pytest.approx(0.1)
