"""Free ports of the loopback, and waiting for what will come true."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable

__all__ = ["HOST", "LateError", "free_port", "until"]

HOST = "127.0.0.1"

# Below the ports that Linux gives to outgoing connections: a server that is down for a while finds its port free again,
# and nobody who tries to reach it meanwhile is connected to himself.
LOWEST, HIGHEST = 15_000, 32_000

_given: set[int] = set()


class LateError(AssertionError):
    """It did not come true in time."""


def free_port() -> int:
    """A port that nobody listens on, never given before by this process."""
    chance = random.Random(os.urandom(8))  # tests seed the shared one, and may run side by side
    while True:
        port = chance.randint(LOWEST, HIGHEST)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port


def until(true: Callable[[], object], *, timeout: float, what: str, pause: float = 0.01) -> None:
    """Ask until it is true. Raises LateError, with ``what``."""
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() > deadline:
            raise LateError(f"waited {timeout} s for {what}")
        time.sleep(pause)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
