from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.report import table
from tests.faults.sqlite import plan
from tests.faults.sqlite.stage import Stage


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(900 if plan.LONG else 240))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    entries = sorted(plan.ENTRIES, key=lambda entry: entry.row)
    if not entries:
        return
    terminalreporter.section("faults on sqlite")
    for entry in entries:
        terminalreporter.write_line(entry.line())
    found = table(entries, title=f"Seed {plan.SEED}, {'long' if plan.LONG else 'short'} form.")
    if plan.LONG:
        terminalreporter.section("promises and faults")
        terminalreporter.write_line(found)
    if place := os.environ.get("NEURALCORE_FAULTS_TABLE"):
        Path(place).write_text(found, encoding="utf-8")


@pytest.fixture
def stage(tmp_path: Path):
    with Stage(tmp_path) as stage:
        yield stage
