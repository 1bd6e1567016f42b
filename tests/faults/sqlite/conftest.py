from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.sqlite import plan
from tests.faults.sqlite.stage import Stage

collect_ignore_glob = [] if "NEURALCORE_FAULTS" in os.environ else ["test_*.py"]
"""They take minutes: `make faults` runs the long form, NEURALCORE_FAULTS=short the short one."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if plan.LONG and here in item.path.parents:
            item.add_marker(pytest.mark.timeout(900))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if plan.LINES:
        terminalreporter.section("faults on sqlite")
    for row, line in sorted(plan.LINES):
        terminalreporter.write_line(f"{row:2} {line}")


@pytest.fixture
def stage(tmp_path: Path):
    with Stage(tmp_path) as stage:
        yield stage
