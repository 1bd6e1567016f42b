"""Everything in here takes real processes and real time, and Linux: /proc, tmpfs, preloaded libraries.

What has a folder of its own is a transport: its tests are long, and tell what came of them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.faults import plan
from tests.faults.report import table

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.skipif(sys.platform != "linux", reason="made with Linux's means"))
            if item.path.parent != HERE:
                item.add_marker(pytest.mark.timeout(900 if plan.LONG else 240))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.path.is_relative_to(HERE):
        plan.begin(item.path.parent.name)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tables = []
    for transport, found in sorted(plan.ENTRIES.items()):
        entries = sorted(found, key=lambda entry: entry.row)
        terminalreporter.section(f"faults on {transport}")
        for entry in entries:
            terminalreporter.write_line(entry.line())
        form = "long" if plan.LONG else "short"
        tables.append(table(entries, title=f"## {transport}\n\nSeed {plan.SEED}, {form} form."))
    if plan.LONG and tables:
        terminalreporter.section("promises and faults")
        terminalreporter.write_line("\n".join(tables))
    if tables and (place := os.environ.get("NEURALCORE_FAULTS_TABLE")):
        Path(place).write_text("\n".join(tables), encoding="utf-8")
