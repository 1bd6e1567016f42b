"""Hosts that reach each other, are cut off, come back, and leave nothing behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from examples.cluster import network
from examples.cluster.network import Network, NetworkError
from tests.servers.missing import need

HOSTS = ["h1", "h2"]
CONNECT = "import socket, sys; s = socket.socket(); s.settimeout(3); print(s.connect_ex((sys.argv[1], 9)))"


@pytest.fixture
def made() -> Iterator[Network]:
    need("ip")
    if os.geteuid():
        pytest.skip("network namespaces take root")
    try:
        with Network(HOSTS) as made:
            yield made
    except NetworkError as refused:
        pytest.skip(f"no network namespaces here: {refused}")


def reaches(made: Network, host: str, other: str) -> bool:
    """Nobody listens, so whoever is reached refuses."""
    command = made.command(host, sys.executable, "-c", CONNECT, made.address(other))
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) == errno.ECONNREFUSED


def there() -> str:
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_a_host_is_cut_off_and_healed(made: Network) -> None:
    assert reaches(made, "h1", "h2")
    made.cut("h2")
    assert not reaches(made, "h1", "h2")
    assert not reaches(made, "h2", "h1")
    made.heal("h2")
    assert reaches(made, "h1", "h2")
    assert reaches(made, "h2", "h1")


def test_nothing_is_left_behind(made: Network) -> None:
    own = made.namespace("h1")
    assert own in there()
    made.__exit__(None, None, None)
    assert str(os.getpid()) not in there()


def test_nothing_is_left_of_what_could_not_be_made(made: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    made.__exit__(None, None, None)
    monkeypatch.setattr(network, "SUBNET", "10.77.0.0.0")
    with pytest.raises(NetworkError, match="address add"), Network(HOSTS):
        pass
    assert str(os.getpid()) not in there()


def test_what_a_killed_run_left_is_removed_by_the_next(made: Network) -> None:
    made.__exit__(None, None, None)
    script = "import os; from examples.cluster.network import Network; Network(['h1']).__enter__(); print(os.getpid())"
    left = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert f"neuralcore-{left}-h1" in there()
    with Network(HOSTS):
        assert f"neuralcore-{left}-" not in there()


def test_it_says_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network.shutil, "which", lambda name: f"/sbin/{name}")
    monkeypatch.setattr(network.os, "geteuid", lambda: 1000)
    with pytest.raises(NetworkError, match="root"), Network(HOSTS):
        pass
    monkeypatch.setattr(network.shutil, "which", lambda _: None)
    with pytest.raises(NetworkError, match="apt-get install iproute2"), Network(HOSTS):
        pass
