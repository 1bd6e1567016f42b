"""Workers are heard, stopped, continued, killed, and always reaped."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.faults.processes import Gone, Moments, Worker

COUNTER = """
import itertools, time
for n in itertools.count():
    print(n, flush=True)
    time.sleep(0.001)
"""


def test_a_killed_worker_is_reaped_and_all_it_said_is_heard() -> None:
    with Worker.python(COUNTER) as worker:
        worker.expect("5")
        assert worker.kill_after(0.01) == -signal.SIGKILL
        assert worker.lines == [str(n) for n in range(len(worker.lines))]
    assert not worker.alive
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)


def test_its_children_die_with_it() -> None:
    script = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    with Worker.python(script) as worker:
        child = int(worker.until(bool)[0])
    deadline = time.monotonic() + 5
    while not _dead(child) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert _dead(child)


def _dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_paused_worker_stands_still_until_it_is_resumed() -> None:
    with Worker.python(COUNTER) as worker:
        worker.expect("3")
        worker.pause()
        time.sleep(0.05)  # what was in the pipe is read
        before = len(worker.lines)
        time.sleep(0.05)
        assert len(worker.lines) == before
        worker.resume()
        worker.until(lambda lines: len(lines) > before)
        worker.pause()  # and ends all the same


def test_it_answers_what_is_said_to_it_and_ends_by_itself() -> None:
    with Worker.python("import sys; print(input()[::-1], flush=True); sys.exit(3)") as worker:
        worker.say("abc")
        worker.expect("cba")
        assert worker.wait() == 3


def test_terminating_is_polite() -> None:
    script = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: (print("bye", flush=True), sys.exit(0)))
print("ready", flush=True)
signal.pause()
"""
    with Worker.python(script) as worker:
        worker.expect("ready")
        worker.terminate()
        assert worker.wait() == 0
        assert worker.lines == ["ready", "bye"]


def test_waiting_for_the_dead_says_why() -> None:
    with Worker.python("raise SystemExit('out of luck')") as worker, pytest.raises(Gone, match="out of luck"):
        worker.expect("ready")


def test_waiting_for_the_silent_ends() -> None:
    with Worker.python("import time; time.sleep(60)") as worker, pytest.raises(Gone, match="silent"):
        worker.expect("ready", timeout=0.1)


def test_the_same_seed_gives_the_same_moments() -> None:
    def times(seed: int) -> list[float]:
        moments = Moments(seed)
        return [moments.next(0.1, 0.2) for _ in range(5)]

    assert times(1) == times(1) != times(2)
    assert all(0.1 <= moment < 0.2 for moment in times(3))
