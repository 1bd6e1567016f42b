"""One host: its processes, which are started, drained, killed together, and cut off together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from examples.cluster.evidence import Evidence
from examples.cluster.network import Network
from tests.servers import starter

__all__ = ["ROOT", "Host", "start"]

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 20.0


def start(network: Network, host: str, log: Path, module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """In the host's namespace and a process group of its own; it ends with this process, whatever happens."""
    command = network.command(host, sys.executable, "-m", f"examples.cluster.{module}", *arguments)
    return starter.start(command, folder=ROOT, log=log, env=None)


class Host:
    def __init__(self, name: str, network: Network, url: str, evidence: Evidence, *, workers: int) -> None:
        self.name = name
        self.network = network
        self.url = url
        self.evidence = evidence
        self.count = workers
        self.workers: list[subprocess.Popen[bytes]] = []
        self.front: subprocess.Popen[bytes] | None = None

    @property
    def pids(self) -> set[int]:
        """Of its workers."""
        return {worker.pid for worker in self.workers}

    def start_workers(self) -> None:
        self.workers = [self._start("worker") for _ in range(self.count)]

    def start_front(self) -> None:
        self.front = self._start("front")

    def drain_workers(self) -> list[int]:
        """SIGTERM; their exit codes."""
        return _terminate(self.workers)

    def stop_front(self) -> list[int]:
        return _terminate([self.front] if self.front else [])

    def kill(self) -> None:
        """As when the power fails: all its processes at once."""
        processes = [*self.workers, *([self.front] if self.front else [])]
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        for process in processes:
            process.wait()

    def _start(self, module: str) -> subprocess.Popen[bytes]:
        log = self.evidence.folder / f"{self.name}.log"
        return start(self.network, self.name, log, module, self.name, self.url, str(self.evidence.path(self.name)))


def _terminate(processes: Iterable[subprocess.Popen[bytes]]) -> list[int]:
    for process in processes:
        process.terminate()
    return [_code(process) for process in processes]


def _code(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
