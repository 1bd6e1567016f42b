"""A Redis of one's own: started on a free port, stopped by its process id, gone when this process is."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["VERSIONS", "Server", "binary", "told", "used"]

VERSIONS = ("7.0", "8.2")
HOST = "127.0.0.1"
ATTEMPTS = 5
PATIENCE = 30.0
SETTINGS = {
    "bind": HOST,
    "save": '""',
    "appendonly": "yes",
    "appendfsync": "everysec",
    "auto-aof-rewrite-percentage": "0",  # between two runs instead, where nothing is timed: see Server.wipe
}
REWRITE_ABOVE = 64 << 20


def binary(version: str) -> Path | None:
    """What is installed as 7.0 is Debian's; 8.2 is what `make servers` puts into its cache."""
    if version == "7.0":
        found = shutil.which("redis-server")
        return Path(found) if found else None
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(os.environ.get("NEURALCORE_SERVERS") or Path(home, "neuralcore", "servers"))
    built = cache / f"redis-{version}" / "redis-server"
    return built if built.exists() else None


_used: list[str] = []


def used(version: str) -> None:
    """Say that this run is about a server of this version."""
    _used.append(version)


def told() -> str | None:
    """What a report says about the server, where there is one."""
    server = binary(_used[-1]) if _used else None
    if server is None:
        return None
    said = subprocess.run([server, "--version"], capture_output=True, text=True, check=True).stdout
    exact = next((word.removeprefix("v=") for word in said.split() if word.startswith("v=")), "of unknown version")
    return f"Redis {exact}, appendonly {SETTINGS['appendonly']}, appendfsync {SETTINGS['appendfsync']}"


class Server:
    def __init__(self, server: Path, folder: Path) -> None:
        """Starts it; its files lie in the folder."""
        self._binary, self._folder = server, folder
        self._process = self._started()
        atexit.register(self.stop)
        self._client = self._connected()

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self._port}/0"

    def cpu_ns(self) -> float:
        """All that it has used, children that rewrite its files not counted."""
        used = self._client.info("cpu")
        return float(used["used_cpu_user"] + used["used_cpu_sys"]) * 1e9

    def connections(self) -> int:
        """But this one."""
        return len(self._client.client_list()) - 1

    def wipe(self) -> None:
        """Nothing is left, and its files are short again."""
        self._client.flushall()
        if self._client.info("persistence")["aof_current_size"] > REWRITE_ABOVE:
            self.rewrite()

    @contextmanager
    def syncing(self, when: str) -> Iterator[None]:
        """In the block its file is synced then, and afterwards as for all others."""
        self._client.config_set("appendfsync", when)
        try:
            yield
        finally:
            self._client.config_set("appendfsync", SETTINGS["appendfsync"])

    def rewrite(self) -> None:
        """Returns when it is over."""
        self._client.bgrewriteaof()
        while self._rewriting():
            time.sleep(0.01)

    def _rewriting(self) -> bool:
        told = self._client.info("persistence")
        return bool(told["aof_rewrite_in_progress"] or told["aof_rewrite_scheduled"])

    def stop(self) -> None:
        self._client.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        atexit.unregister(self.stop)

    def _started(self) -> subprocess.Popen[bytes]:
        for _ in range(ATTEMPTS):  # another program may take the port first
            self._port = _free_port()
            process = self._start()
            if _answers(self._port, process):
                return process
            process.kill()
            process.wait()
        raise RuntimeError(f"{self._binary} does not start:\n{(self._folder / 'log').read_text()[-2000:]}")

    def _start(self) -> subprocess.Popen[bytes]:
        lines = [*SETTINGS.items(), ("port", self._port), ("dir", f'"{self._folder}"')]
        configuration = self._folder / "redis.conf"
        configuration.write_text("".join(f"{key} {value}\n" for key, value in lines))
        tied = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
        with (self._folder / "log").open("ab") as said:
            return subprocess.Popen(
                [*tied, self._binary, configuration],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _connected(self) -> Any:
        import redis

        return redis.Redis(host=HOST, port=self._port, socket_timeout=600.0, decode_responses=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with socket.create_connection((HOST, port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(64).startswith(b"+PONG"):
                    return True
        except OSError:
            pass
        time.sleep(0.01)
    return False
