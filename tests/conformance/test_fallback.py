"""The core in pure Python keeps the same promises, under the same suite."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, logging, sys
logging.disable(logging.CRITICAL)
from neuralcore._core import IMPLEMENTATION
from neuralcore.testing.conformance import run
report = run(sys.argv[1]).to_dict()
print(json.dumps({"core": IMPLEMENTATION, **report}))
"""


@pytest.mark.parametrize("url", ["native://", "memory://"])
def test_conformance(url):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, url],
        env={**os.environ, "NEURALCORE_NATIVE": "0", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=55,
        check=True,
    )
    report = json.loads(done.stdout)
    assert report["core"] == "fallback"
    assert report["ok"], [result for result in report["results"] if result["verdict"] == "fail"]
    assert report["counts"]["pass"] >= 85
