"""Two versions of Python, each with its own SQLite and one of them without the native core, on one file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.faults.plan import long_only, tell, times
from tests.faults.sqlite.stage import SqliteStage
from tests.faults.stage import reply

PACKAGES = ("msgspec", "numpy", "aiosqlite")
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
PURE = {"NEURALCORE_NATIVE": "0"}


def interpreter(version: str) -> str:
    """With the packages; made when it is first wanted, and kept in a temporary folder. Skips with the reason."""
    place = Path(tempfile.gettempdir()) / f"neuralcore-python-{version}-{os.getuid()}"
    python = place / "bin/python"
    if not works(python):
        make(version, place)
    if not works(python):
        pytest.skip(f"{python} has no {', '.join(PACKAGES)}")
    return str(python)


def works(python: Path) -> bool:
    command = [str(python), "-c", f"import {', '.join(PACKAGES)}"]
    return python.exists() and subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


def make(version: str, place: Path) -> None:
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    base = str(found[-1]) if found else shutil.which(f"python{version}")
    if base is None:
        pytest.skip(f"there is no Python {version} here")
    for command in ([base, "-m", "venv", str(place)], [str(place / "bin/pip"), "install", "-q", *PACKAGES]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            pytest.skip(f"{' '.join(command)}: {done.stderr.strip()[-200:]}")


@long_only
def test_two_versions_share_a_file(stage: SqliteStage) -> None:
    others = [version for version in ("3.10", "3.13") if version != HERE]
    pythons = [interpreter(version) for version in others]
    stage.query = "lease=1&durability=normal"
    producers = [stage.producer(python=python, env=PURE, pause=0.005, keys=3, log_due=100_000) for python in pythons]
    producers.append(stage.producer(pause=0.005, keys=3, log_due=100_000))
    consumers = [start(stage, python) for python in pythons]
    for number in range(times(2, 12)):
        victim = consumers.pop(0)
        victim.until(lambda lines: any(line.startswith("begun") for line in lines))
        stage.strike(victim, stage.moments.next(0.1, 0.4), "kill -9 consumer")
        consumers.append(start(stage, pythons[number % len(pythons)]))
    for producer in producers:
        reply(producer, "stop")
    stage.until_settled()
    story = stage.story()
    tell(26, f"Python {', '.join(others)} and {HERE} on one file", story)
    story.check()
    assert stage.damage() == ""


def start(stage: SqliteStage, python: str):
    worker = stage.start("consume", python=python, env=PURE, concurrency=2, work=0.002, log_due=100_000)
    worker.expect("ready", timeout=40)
    return worker
