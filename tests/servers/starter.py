"""Starts processes that end with this one, even when it is killed with -9.

Linux sends a parent-death signal when the *thread* that started a process ends. So all are started by one thread that
lives as long as this process, wherever they are asked for. That is also why they are not started with preexec_fn, which
may deadlock beside threads: setpriv sets the signal and then becomes the server.
"""

from __future__ import annotations

import os
import queue
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

__all__ = ["start"]


def start(command: Sequence[str], *, folder: Path, log: Path, env: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    """The process, in a session of its own, with ``folder`` as its own and everything it says at the end of ``log``."""

    def begin() -> subprocess.Popen[bytes]:
        with log.open("ab") as said:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                cwd=folder,
                env=None if env is None else dict(env),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    return _parent.run(begin)


class _Parent:
    """The thread, from its first use on."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """A forked child has no such thread, and may have got the lock locked."""
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Callable[[], None]] | None = None

    def run(self, begin: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        started: Future[subprocess.Popen[bytes]] = Future()

        def job() -> None:
            try:
                started.set_result(begin())
            except BaseException as error:
                started.set_exception(error)

        self._queue().put(job)
        return started.result()

    def _queue(self) -> queue.SimpleQueue[Callable[[], None]]:
        with self._lock:
            if self._jobs is None:
                self._jobs = queue.SimpleQueue()
                threading.Thread(target=_serve, args=(self._jobs,), name="servers' parent", daemon=True).start()
            return self._jobs


def _serve(jobs: queue.SimpleQueue[Callable[[], None]]) -> None:
    while True:
        jobs.get()()


_parent = _Parent()
os.register_at_fork(after_in_child=_parent.forget)
