"""Which core is used: the native one, unless it is missing or was switched off."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest

NATIVE_IS_BUILT = importlib.util.find_spec("neuralcore._native") is not None

REPORT = """
import json, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    {prelude}
    import neuralcore._core as core
    import neuralcore._core
warned = [[each.category.__name__, str(each.message)] for each in caught if "core" in str(each.message)]
print(json.dumps([core.IMPLEMENTATION, core.is_native_available(), warned]))
"""


def choose(prelude="", **environment):
    clean = {name: value for name, value in os.environ.items() if name != "NEURALCORE_NATIVE"}
    code = REPORT.format(prelude=prelude)
    result = subprocess.run(
        [sys.executable, "-c", code], env={**clean, **environment}, capture_output=True, text=True, check=True
    )
    return json.loads(result.stdout)


@pytest.mark.skipif(not NATIVE_IS_BUILT, reason="the native core is not built: run `maturin develop`")
def test_the_native_core_is_chosen_without_a_warning():
    assert choose() == ["native", True, []]


def test_the_fallback_can_be_asked_for_and_warns_once_how_to_get_the_native_one_back():
    implementation, available, warned = choose(NEURALCORE_NATIVE="0")
    assert (implementation, available) == ("fallback", False)
    [(category, text)] = warned
    assert category == "RuntimeWarning"
    assert "NEURALCORE_NATIVE" in text


def test_a_missing_native_core_is_replaced_and_the_warning_says_how_to_build_it():
    implementation, available, warned = choose("import sys; sys.modules['neuralcore._native'] = None")
    assert (implementation, available) == ("fallback", False)
    [(category, text)] = warned
    assert category == "RuntimeWarning"
    assert "maturin develop" in text
    assert "neuralcore-runtime" in text
