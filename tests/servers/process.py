"""A server that runs in a process of its own: started, paused, killed, restarted, and gone when the tests are.

All of it blocks; in a coroutine: ``await asyncio.to_thread(server.restart)``.
"""

from __future__ import annotations

import abc
import atexit
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from tests.servers import starter
from tests.servers.ports import LateError, until

__all__ = ["NotReadyError", "ServerProcess"]

PATIENCE = 20.0
TAIL = 40

_Self = TypeVar("_Self", bound="ServerProcess")
_started: set[ServerProcess] = set()


class NotReadyError(AssertionError):
    """The server ended, or did not answer in time; its last words are in the text."""


class ServerProcess(abc.ABC):
    """``folder`` holds its data, its configuration and its log, and stays when the server stops.

    ``env`` is its whole environment, for preloaded libraries; by default that of the tests.
    """

    def __init__(
        self, name: str, folder: Path, *, env: Mapping[str, str] | None = None, patience: float = PATIENCE
    ) -> None:
        self.name = name
        self.folder = folder
        self.env = env
        self.patience = patience
        self.hurt = False
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @abc.abstractmethod
    def command(self) -> list[str]:
        """What to run, after having written what it reads."""

    @abc.abstractmethod
    def answers(self) -> bool:
        """Whether it serves; asked again and again, so soon answered."""

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Paused counts as running."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Of the last one that ended, negative for a signal."""
        return None if self._process is None else self._process.poll()

    @property
    def log_file(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def log(self) -> str:
        """Everything it said, earlier starts included."""
        return self.log_file.read_text(encoding="utf-8", errors="replace") if self.log_file.exists() else ""

    def start(self: _Self, *, wait: bool = True) -> _Self:
        """Returns when it serves. With ``wait=False`` at once; ``wait_ready`` is then left to the caller."""
        assert not self.running, f"{self.name} runs already"
        self._process = starter.start(self.command(), folder=self.folder, log=self.log_file, env=self.env)
        _started.add(self)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        try:
            until(lambda: not self.running or self.answers(), timeout=self.patience, what=f"{self.name} to answer")
        except LateError as late:
            self.kill()
            raise NotReadyError(f"{late}\n{self._last_words()}") from None
        if not self.running:
            raise NotReadyError(f"{self.name} ended with {self.exit_code}\n{self._last_words()}")

    def stop(self, *, grace: float = 10.0) -> None:
        """SIGTERM, and SIGKILL after ``grace`` seconds. Nothing where it does not run."""
        self.resume()
        deadline = time.monotonic() + grace
        while self.running and self._process is not None and time.monotonic() < deadline:
            self._signal(signal.SIGTERM)  # more than once: Redis ignores it while it writes its first log
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(min(grace, 0.5))
        self.kill()

    def kill(self) -> None:
        """SIGKILL to it and its children; returns when it is gone."""
        self.hurt = True
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        _started.discard(self)

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing. Returns once it stands still."""
        self.hurt = True
        self._signal(signal.SIGSTOP)
        until(lambda: not self.running or self._state() in "Tt", timeout=PATIENCE, what=f"{self.name} to stand still")

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def restart(self: _Self, *, kill: bool = False) -> _Self:
        """Stopped cleanly, or killed, and started on the same ports and data."""
        if kill:
            self.kill()
        else:
            self.stop()
        return self.start()

    def heal(self) -> None:
        """Have it serve again, whatever was done to it; costs nothing where nothing was done."""
        if self.running and not self.hurt:
            return
        self.resume()
        if self.running:
            self.wait_ready()
        else:
            self.start()
        self.hurt = False

    def __enter__(self: _Self) -> _Self:
        return self if self.running else self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.running else "not running"
        return f"<{type(self).__name__} {self.name}, {state}>"

    def _signal(self, number: signal.Signals) -> None:
        if self.running:  # it is not reaped, so its number cannot be somebody else's
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def _state(self) -> str:
        status = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii", errors="replace")
        return status.rpartition(")")[2].split()[0]

    def _last_words(self) -> str:
        lines = self.log.splitlines()[-TAIL:]
        return "\n".join([f"--- the end of {self.log_file}:", *lines])


def _stop_all(owner: int) -> None:
    if os.getpid() != owner:  # a forked child ends: the servers are its parent's
        return
    for server in list(_started):
        server.resume()
        server.kill()


atexit.register(_stop_all, os.getpid())
