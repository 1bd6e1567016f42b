"""A disk that syncs more slowly, for a program and what it starts."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks._slow_disk import sync_more, syncing_slower

PROGRAM = """
import os, subprocess, sys, time
from benchmarks._slow_disk import sync_more, syncing_slower
syncing_slower(int(sys.argv[1]))
for sync in (os.fsync, os.fdatasync):
    with open(sys.argv[2], "wb") as file:
        file.write(b"x")
        file.flush()
        began = time.monotonic()
        sync(file.fileno())
        print(time.monotonic() - began > sync_more() / 1e6 > 0)
sys.stdout.flush()
subprocess.run([sys.executable, "-c", "from benchmarks._slow_disk import sync_more; print(sync_more())"], check=True)
sys.exit(7)
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not (shutil.which("cc") or shutil.which("gcc")),
    reason="needs Linux and a C compiler: apt-get install gcc libc6-dev",
)
def test_syncs_take_longer_and_the_program_ends_as_it_does(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, "30000", str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert (done.stdout.split(), done.returncode) == (["True", "True", "30000"], 7), done.stderr


def test_nothing_happens_where_nothing_is_asked_for() -> None:
    assert sync_more() == 0
    syncing_slower(0)


def test_less_than_nothing_is_refused() -> None:
    with pytest.raises(SystemExit, match="from 0 up"):
        syncing_slower(-1)
