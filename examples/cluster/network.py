"""Hosts on one machine: network namespaces on one switch, which is a bridge in a namespace of its own.

>>> with Network(["h1", "h2"]) as network:
...     subprocess.run(network.command("h1", "ping", "-c1", network.address("h2")))
...     network.cut("h1")
...     network.heal("h1")

Nothing of it touches the machine's own network.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

__all__ = ["Network", "NetworkError"]

PREFIX = "neuralcore"
SUBNET = "10.77.0"


class NetworkError(Exception):
    """This machine, or this user, cannot have network namespaces; the text says what is missing."""


class Network:
    """Made on entering, removed on leaving; its names hold this process's id, so that several can be there at once."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self.hosts = tuple(hosts)
        self._switch = self.namespace("switch")

    def namespace(self, host: str) -> str:
        return f"{PREFIX}-{os.getpid()}-{host}"

    def address(self, host: str) -> str:
        return f"{SUBNET}.{self.hosts.index(host) + 1}"

    def command(self, host: str, *command: str) -> list[str]:
        """The same command, for that host: it becomes the process that is started."""
        return ["ip", "netns", "exec", self.namespace(host), *command]

    def cut(self, host: str) -> None:
        """Pull the cable: what is sent either way is gone, and nobody is told."""
        _ip("-n", self._switch, "link", "set", _port(host), "down")

    def heal(self, host: str) -> None:
        _ip("-n", self._switch, "link", "set", _port(host), "up")

    def __enter__(self) -> Network:
        _check()
        _remove_leftovers()
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._remove()

    def _make(self) -> None:
        switch = self._switch
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for host in self.hosts:
            own, port = self.namespace(host), _port(host)
            _ip("netns", "add", own)
            _ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", own)
            _ip("-n", switch, "link", "set", port, "master", "bridge", "up")
            _ip("-n", own, "address", "add", f"{self.address(host)}/24", "dev", "eth0")
            _ip("-n", own, "link", "set", "eth0", "up")
            _ip("-n", own, "link", "set", "lo", "up")

    def _remove(self) -> None:
        for namespace in (self._switch, *map(self.namespace, self.hosts)):
            with contextlib.suppress(NetworkError):
                _ip("netns", "delete", namespace)


def _check() -> None:
    if shutil.which("ip") is None:
        raise NetworkError("network namespaces take the command ip: apt-get install iproute2")
    if os.geteuid() != 0:
        raise NetworkError("network namespaces take root: run it with sudo")


def _remove_leftovers() -> None:
    """Of runs that were killed with -9."""
    for line in _ip("netns", "list").splitlines():
        found = re.match(rf"({PREFIX}-(\d+)-\w+)", line)
        if found and not Path("/proc", found[2]).exists():
            with contextlib.suppress(NetworkError):
                _ip("netns", "delete", found[1])


def _port(host: str) -> str:
    return f"to-{host}"


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NetworkError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
