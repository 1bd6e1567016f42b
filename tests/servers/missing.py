"""Where the servers are that `make servers` installs, and what happens in a test when one is not there."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

__all__ = ["ALL_REDIS_VERSIONS", "REDIS_VERSIONS", "find", "need", "redis_binary"]

REDIS_VERSIONS = ("7.0", "8.2")
ALL_REDIS_VERSIONS = ("6.2", *REDIS_VERSIONS)
"""The oldest has neither functions nor flags of scripts."""
KAFKA = "4.4.0"


def cache() -> Path:
    """The folder of tools/servers.sh."""
    chosen = os.environ.get("NEURALCORE_SERVERS")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(chosen) if chosen else Path(home, "neuralcore", "servers")


def find(name: str) -> Path | None:
    """``redis-7.0`` (Debian's, whatever its version), ``redis-6.2``, ``redis-8.2``, ``kafka``, or a command's name."""
    if name == "redis-7.0":
        return _command("redis-server")
    if name in ("redis-6.2", "redis-8.2"):
        return _there(cache() / name / "redis-server")
    if name == "kafka":
        return _there(cache() / f"kafka-{KAFKA}" / "libs") if _command("java") else None
    return _command(name)


def need(*names: str) -> None:
    """Skip the test where one of them is missing; fail it where NEURALCORE_SERVERS_REQUIRED=1, as in CI."""
    missing = [name for name in (*names, "setpriv") if find(name) is None]
    if not missing and sys.platform == "linux":
        return
    reason = f"not found: {', '.join(missing)}; make servers gets it" if missing else "servers take Linux's means"
    if os.environ.get("NEURALCORE_SERVERS_REQUIRED") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def redis_binary(version: str) -> Path:
    binary = find(f"redis-{version}")
    if binary is None:
        raise FileNotFoundError(f"Redis {version} is not here: make servers")
    return binary


def _command(name: str) -> Path | None:
    path = shutil.which(name)
    return Path(path) if path else None


def _there(path: Path) -> Path | None:
    return path if path.exists() else None
