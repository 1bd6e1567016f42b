"""Worker processes that speak lines, and are stopped, continued and killed.

>>> with Worker.python(SCRIPT, str(path), env=power.environment()) as worker:
...     worker.expect("ready")
...     worker.kill_after(Moments(seed=7).next(0.05, 0.3))
...     lines = worker.lines                # all it had written before it died
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

__all__ = ["Gone", "Moments", "Worker"]

PATIENCE = 20.0


class Gone(AssertionError):
    """The worker ended, or was silent for too long, before it said what was waited for."""


class Moments:
    """Times by a seed, for kills and pauses: the same seed, the same times."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def next(self, least: float, most: float) -> float:
        return self._random.uniform(least, most)


class Worker:
    """A process in a group of its own, which ends with the ``with`` block whatever happens, its children too."""

    def __init__(self, *command: str, env: Mapping[str, str] | None = None, cwd: str | None = None) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._lines: list[str] = []
        self._errors: list[bytes] = []
        self._grown = threading.Condition()
        self._open = True
        self._killed = False
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read, self._read_errors)]
        for reader in self._readers:
            reader.start()

    @classmethod
    def python(cls, script: str, *arguments: str, env: Mapping[str, str] | None = None) -> Worker:
        """``script`` is source text. It must flush what it prints: ``print(…, flush=True)``."""
        return cls(sys.executable, "-c", script, *arguments, env=env)

    @property
    def lines(self) -> list[str]:
        """What it has written so far; after ``kill`` or ``wait`` everything it ever wrote."""
        with self._grown:
            return list(self._lines)

    @property
    def errors(self) -> str:
        return b"".join(self._errors).decode(errors="replace")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def expect(self, line: str, *, timeout: float = PATIENCE) -> None:
        self.until(lambda lines: line in lines, timeout=timeout, what=repr(line))

    def until(self, true: Callable[[list[str]], bool], *, timeout: float = PATIENCE, what: str = "enough") -> list[str]:
        """Wait for its lines to fulfil a condition."""
        deadline = time.monotonic() + timeout
        with self._grown:
            while not true(self._lines):
                left = deadline - time.monotonic()
                if left <= 0 or not self._open:
                    why = f"it was silent for {timeout} s" if self._open else "it ended"
                    raise Gone(f"waiting for {what}: {why}\nsaid: {self._lines[-5:]}\nerrors: {self.errors}")
                self._grown.wait(left)
            return list(self._lines)

    def pause(self) -> None:
        """SIGSTOP; returns once it stands still."""
        self._signal(signal.SIGSTOP)
        deadline = time.monotonic() + PATIENCE
        while self.alive and self._state() not in "Tt" and time.monotonic() < deadline:
            time.sleep(0.001)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def stacks(self) -> str:
        """What it has said of errors, and where it stands."""
        self._signal(signal.SIGUSR1)
        time.sleep(0.5)
        return f"{self.pid}:\n{self.errors}"

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def interrupt(self) -> None:
        """As Ctrl-C does."""
        self._signal(signal.SIGINT)

    def kill(self) -> int:
        """SIGKILL to it and its children; returns its exit code once it is reaped and read to the end."""
        self._signal(signal.SIGKILL)
        self._killed = True
        return self.wait()

    def kill_after(self, seconds: float) -> int:
        time.sleep(seconds)
        return self.kill()

    def wait(self, timeout: float = PATIENCE) -> int:
        """Its exit code, negative for a signal. Raises subprocess.TimeoutExpired."""
        code = self._process.wait(timeout)
        for reader in self._readers:
            reader.join(timeout)
        return code

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def _signal(self, number: signal.Signals) -> None:
        if self._killed:  # its number may be somebody else's by now
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _state(self) -> str:
        status = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii", errors="replace")
        return status.rpartition(")")[2].split()[0]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not line.endswith(b"\n"):  # killed in the midst of a line, which nobody can have relied on
                break
            with self._grown:
                self._lines.append(line.decode(errors="replace").rstrip("\n"))
                self._grown.notify_all()
        with self._grown:
            self._open = False
            self._grown.notify_all()

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self._errors.extend(self._process.stderr)
