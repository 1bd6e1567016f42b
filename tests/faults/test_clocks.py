"""Clocks that jump, and those that must not."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

import pytest

from tests.faults import shims
from tests.faults.clocks import Clock
from tests.faults.powercut import PowerCut
from tests.faults.processes import Worker

pytestmark = pytest.mark.skipif(not shims.available(), reason=str(shims.NoCompiler()))

HOURS = 7200
SCRIPT = """
import datetime, json, pathlib, sqlite3, sys, time
for _ in sys.stdin:
    print(json.dumps({
        "time": time.time(),
        "datetime": datetime.datetime.now(datetime.timezone.utc).timestamp(),
        "sqlite": sqlite3.connect(":memory:").execute("select unixepoch('now')").fetchone()[0],
        "realtime": time.clock_gettime(time.CLOCK_REALTIME),
        "monotonic": time.monotonic(),
        "boottime": time.clock_gettime(time.CLOCK_BOOTTIME),
        "perf_counter": time.perf_counter(),
        "boot": pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(),
    }), flush=True)
"""
WALL = ("time", "datetime", "sqlite", "realtime")
STEADY = ("monotonic", "boottime", "perf_counter")
WAITS = """
import asyncio, ctypes, threading, time
libc = ctypes.CDLL(None)
class Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]
def soon(clock):
    return ctypes.byref(Timespec(*divmod(time.clock_gettime_ns(clock) + 50_000_000, 10**9)))
def condition(clock):
    attributes, waits, lock = (ctypes.create_string_buffer(64) for _ in range(3))
    libc.pthread_condattr_init(attributes)
    libc.pthread_condattr_setclock(attributes, clock)
    libc.pthread_cond_init(waits, attributes)
    libc.pthread_mutex_init(lock, None)
    libc.pthread_mutex_lock(lock)
    assert libc.pthread_cond_timedwait(waits, lock, soon(clock)) == 110
def futex(flags, clock):
    word = ctypes.c_int(0)
    libc.syscall(ctypes.c_long(202), ctypes.byref(word), 9 | 128 | flags, 0, soon(clock), None, -1)
def semaphore():
    one = ctypes.create_string_buffer(64)
    libc.sem_init(one, 0, 0)
    libc.sem_timedwait(one, soon(time.CLOCK_REALTIME))
def took(wait):
    start = time.monotonic()
    wait()
    assert 0.04 < time.monotonic() - start < 2, wait
took(lambda: time.sleep(0.05))
took(lambda: threading.Event().wait(0.05))
took(lambda: threading.Lock().acquire() and (lock := threading.Lock()).acquire() and lock.acquire(timeout=0.05))
took(lambda: condition(time.CLOCK_REALTIME))
took(lambda: condition(time.CLOCK_MONOTONIC))
took(lambda: futex(0, time.CLOCK_MONOTONIC))  # as Rust's threads park
took(lambda: futex(256, time.CLOCK_REALTIME))
took(semaphore)
took(lambda: asyncio.run(asyncio.sleep(0.05)))
print("done", flush=True)
"""


def ask(worker: Worker) -> dict:
    count = len(worker.lines)
    worker.say("")
    return json.loads(worker.until(lambda lines: len(lines) > count)[-1])


def here() -> dict[str, float]:
    steady = {"monotonic": time.monotonic(), "boottime": time.clock_gettime(time.CLOCK_BOOTTIME)}
    return {**dict.fromkeys(WALL, time.time()), **steady, "perf_counter": time.perf_counter()}


def differences(worker: Worker) -> dict[str, float]:
    """By how much its clocks are ahead of ours, to the second or two that asking takes."""
    there, ours = ask(worker), here()
    return {name: there[name] - ours[name] for name in (*WALL, *STEADY)}


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


@pytest.mark.parametrize("seconds", [HOURS, -HOURS])
def test_the_wall_clock_jumps_under_a_running_process_and_no_other_does(clock: Clock, seconds: int) -> None:
    with Worker.python(SCRIPT, env=clock.environment()) as worker:
        assert differences(worker) == pytest.approx(dict.fromkeys((*WALL, *STEADY), 0), abs=2)
        clock.jump(seconds)
        expected = {**dict.fromkeys(WALL, seconds), **dict.fromkeys(STEADY, 0)}
        assert differences(worker) == pytest.approx(expected, abs=2)
        clock.jump(-seconds)
        assert differences(worker) == pytest.approx(dict.fromkeys((*WALL, *STEADY), 0), abs=2)


def test_a_restart_gives_a_new_boot_id_and_clocks_that_begin_again(clock: Clock) -> None:
    with Worker.python(SCRIPT, env=clock.environment()) as worker:
        before = ask(worker)
    assert before["boot"] == Path("/proc/sys/kernel/random/boot_id").read_text()
    clock.restart()
    with Worker.python(SCRIPT, env=clock.environment()) as worker:
        after = ask(worker)
    assert after["boot"] != before["boot"]
    assert 5 <= after["boottime"] < 25
    assert 0 <= after["monotonic"] < 25
    assert after["time"] == pytest.approx(time.time(), abs=2)


@pytest.mark.parametrize("change", ["nothing", "jumped", "restarted"])
def test_waiting_takes_as_long_as_ever(clock: Clock, change: str) -> None:
    if change == "jumped":
        clock.jump(-HOURS)
    if change == "restarted":
        clock.restart()
    with Worker.python(WAITS, env=clock.environment()) as worker:
        worker.expect("done")


def test_it_goes_together_with_a_power_cut(clock: Clock, tmp_path: Path) -> None:
    power = PowerCut(tmp_path / "disk")
    clock.jump(HOURS)
    script = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("pragma journal_mode=wal")
database.execute("create table seen as select unixepoch('now') as at")
print("done", flush=True)
"""
    with Worker.python(script, str(power.directory / "a.db"), env=clock.environment(power.environment())) as worker:
        worker.expect("done")
    power.image(tmp_path / "after", "none")
    assert power.missed() == []
    (at,) = sqlite3.connect(tmp_path / "after/a.db").execute("select at from seen").fetchone()
    assert at == pytest.approx(time.time() + HOURS, abs=5)
