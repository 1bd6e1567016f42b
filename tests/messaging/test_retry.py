import copy
import pickle
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralcore.messaging.retry import Reject, Retry, RetryPolicy


def test_the_defaults_are_pinned() -> None:
    policy = RetryPolicy()
    assert (policy.max_attempts, policy.base, policy.factor, policy.cap, policy.jitter) == (5, 0.1, 2.0, 30.0, True)


def test_the_back_off_doubles_up_to_the_cap() -> None:
    policy = RetryPolicy(base=0.5, factor=2, cap=3, jitter=False)
    assert [policy.delay(attempt) for attempt in range(1, 6)] == [0.5, 1, 2, 3, 3]


def test_a_huge_attempt_number_is_capped() -> None:
    assert RetryPolicy(factor=2, cap=7, jitter=False).delay(10**9) == 7
    assert RetryPolicy(base=0, cap=7, jitter=False).delay(10**9) == 0


@pytest.mark.parametrize(("attempt", "exhausted"), [(1, False), (2, False), (3, True), (4, True)])
def test_exhausted_after_the_last_attempt(attempt: int, exhausted: bool) -> None:
    assert RetryPolicy(max_attempts=3).exhausted(attempt) is exhausted


def test_jitter_repeats_with_its_seed_and_spreads_over_the_whole_range() -> None:
    policy = RetryPolicy(base=1, cap=1)
    draws = [policy.delay(1, random.Random(seed)) for seed in range(500)]
    assert draws == [policy.delay(1, random.Random(seed)) for seed in range(500)]
    assert min(draws) < 0.05
    assert max(draws) > 0.95
    assert 0.45 < sum(draws) / len(draws) < 0.55


@given(
    base=st.floats(0, 100),
    factor=st.floats(1, 10),
    cap=st.floats(0, 1000),
    attempt=st.integers(1, 10_000),
    seed=st.integers(0, 1000),
)
def test_a_delay_never_leaves_its_bounds(base: float, factor: float, cap: float, attempt: int, seed: int) -> None:
    policy = RetryPolicy(base=base, factor=factor, cap=cap)
    assert 0 <= policy.delay(attempt, random.Random(seed)) <= policy.ceiling(attempt) <= cap
    assert policy.ceiling(attempt) <= policy.ceiling(attempt + 1)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"max_attempts": 0}, ValueError),
        ({"max_attempts": 1.5}, TypeError),
        ({"max_attempts": True}, TypeError),
        ({"base": -0.1}, ValueError),
        ({"base": "1"}, TypeError),
        ({"factor": 0.5}, ValueError),
        ({"cap": -1}, ValueError),
        ({"cap": float("inf")}, ValueError),
        ({"cap": 1e12}, ValueError),
        ({"base": float("nan")}, ValueError),
    ],
)
def test_a_bad_field_is_named(fields: dict, error: type[Exception]) -> None:
    (field,) = fields
    with pytest.raises(error, match=rf"RetryPolicy\.{field} "):
        RetryPolicy(**fields)


@pytest.mark.parametrize("after", [-1, float("nan"), float("inf"), 1e12, 1e300, 10**400])
def test_retry_after_nonsense(after: float) -> None:
    with pytest.raises(ValueError, match="after="):
        Retry(after=after)


@pytest.mark.parametrize("after", ["1", True, [1]])
def test_retry_after_what_is_no_number(after: object) -> None:
    with pytest.raises(TypeError, match="after="):
        Retry(after=after)  # type: ignore[arg-type]


@pytest.mark.parametrize("clone", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_they_survive_copying(clone) -> None:
    assert clone(Reject("bad")).reason == "bad"
    assert str(clone(Reject("bad"))) == "bad"
    assert clone(Retry(after=1.5)).after == 1.5
    assert clone(Retry()).after is None
