"""A pytest plugin that records what came of every promise, set-up by set-up.

    pytest -p neuralcore.testing.conformance.plugin --conformance-report=conformance.json tests/test_mine.py

The file has an entry for each ``setup`` of a ``TransportConformance`` (the class's name where it has none): what it ran
``against``, on which ``python``, and ``results``, where each promise is ``passed``, ``failed: …`` or ``skipped: …``.
The tests have to run in one process.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeAlias

import pytest

from neuralcore.testing.conformance.promise import Promise
from neuralcore.testing.conformance.suite import TransportConformance

__all__ = ["Recorder", "pytest_addoption", "pytest_configure"]

_LONGEST = 200
_WORST = ("passed", "skipped", "failed")

Making: TypeAlias = Generator[None, pytest.TestReport, pytest.TestReport]


@dataclass(slots=True)
class _Setup:
    against: str = ""
    python: str = platform.python_version()
    results: dict[str, str] = field(default_factory=dict)


class Recorder:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._setups: dict[str, _Setup] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Making:
        report = yield
        if isinstance(item, pytest.Function) and isinstance(item.instance, TransportConformance):
            promise = item.callspec.params.get("promise") if hasattr(item, "callspec") else None
            if isinstance(promise, Promise):
                self._record(item.instance, str(promise), report)
        return report

    def pytest_sessionfinish(self) -> None:
        found = {name: asdict(setup) for name, setup in self._setups.items()}
        self._path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def _record(self, suite: TransportConformance, promise: str, report: pytest.TestReport) -> None:
        setup = self._setups.setdefault(suite.setup or type(suite).__name__, _Setup())
        if report.when == "call" and not report.failed and not setup.against:
            setup.against = suite.against()
        outcome, before = _outcome(report), setup.results.get(promise)
        if report.when == "setup" and outcome == "passed":
            return
        if before is None or _rank(outcome) > _rank(before):
            setup.results[promise] = outcome


def _rank(outcome: str) -> int:
    return _WORST.index(outcome.partition(":")[0])


def _outcome(report: pytest.TestReport) -> str:
    """A test that was expected to fail, and did, is a promise that is not kept."""
    if report.passed:
        return "passed"
    if hasattr(report, "wasxfail"):
        return f"failed: known: {report.wasxfail.removeprefix('reason: ')}"
    if report.failed:
        where = "" if report.when == "call" else f"{report.when}: "
        return f"failed: {where}{_first_line(report)}"
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return f"skipped: {reason.removeprefix('Skipped: ')}"


def _first_line(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = str(crash.message if crash else report.longrepr).splitlines()
    return lines[0][:_LONGEST] if lines else "without a word"


def pytest_addoption(parser: pytest.Parser) -> None:
    said = "record what came of every promise of the conformance suite"
    parser.addoption("--conformance-report", metavar="FILE", type=Path, help=said)


def pytest_configure(config: pytest.Config) -> None:
    path: Path | None = config.getoption("--conformance-report")
    if path is not None:
        config.pluginmanager.register(Recorder(path), "conformance-report")
