"""The suite notices: every deliberately broken transport fails the promise that it breaks."""

from __future__ import annotations

import re

import pytest

from neuralcore.testing.broken import VARIANTS, Wrapped
from neuralcore.testing.conformance import MemoryHarness, Verdict, catalogue, judge

PROMISES = {str(promise): promise for promise in catalogue()}


@pytest.mark.parametrize(
    ("variant", "name"),
    [(variant, name) for variant, names in VARIANTS.items() for name in names],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_the_suite_catches(variant, name):
    result = judge(PROMISES[name], MemoryHarness(wrap=variant))
    assert result.verdict is Verdict.FAIL, f"{variant.__name__} passed {name}: {result}"
    assert not re.match(r"\w+Error: ", result.detail), f"it fails for another reason: {result.detail}"


@pytest.mark.parametrize("name", sorted({name for names in VARIANTS.values() for name in names}))
def test_the_wrapper_itself_breaks_nothing(name):
    result = judge(PROMISES[name], MemoryHarness(wrap=Wrapped))
    assert result.verdict is Verdict.PASS, result
