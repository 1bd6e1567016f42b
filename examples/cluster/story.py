"""What is done to the cluster, step by step."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from examples.cluster.evidence import Event, Evidence, now
from examples.cluster.host import PATIENCE, Host, start
from examples.cluster.network import Network
from tests.servers.ports import LateError, until

__all__ = ["Acts", "Cluster", "Outage", "Restart", "tell"]

HOSTS = ("h1", "h2", "h3")
SERVERS = "servers"
WORKERS = 2
"""Processes of a host."""
FRESH = 0.1
"""Seconds: handlers that began no longer ago are at work when something is done to them."""
STARTING = 90.0
LONG = 60.0


@dataclass(frozen=True)
class Restart:
    host: str
    pids: set[int]
    codes: list[int]
    began: float
    ended: float


@dataclass(frozen=True)
class Outage:
    kind: Literal["killed", "cut off"]
    host: str
    pids: set[int]
    before: float
    began: float
    """Nothing that its handlers did later has reached the store while it lasted."""
    hand: list[Event]
    """What its handlers were at."""
    ended: float


@dataclass
class Acts:
    restarts: list[Restart] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    left: int = -1
    codes: list[int] = field(default_factory=list)
    """Of the processes that were there to the end."""


class Cluster:
    """Servers that serve, and three hosts on which nothing runs yet; all of it gone on leaving."""

    def __init__(self, kind: str, folder: Path, *, lease: float, say: Callable[[str], None]) -> None:
        self.kind = kind
        self.folder = folder
        self.lease = lease
        self.say = say
        self.network = Network([*HOSTS, SERVERS])
        self.evidence = Evidence(folder)
        self.hosts: list[Host] = []
        self.url = ""
        self._stack = ExitStack()

    def __enter__(self) -> Cluster:
        with ExitStack() as stack:
            stack.enter_context(self.network)
            self.url = stack.enter_context(self._served())
            for name in HOSTS:
                host = Host(name, self.network, self.url, self.evidence, workers=WORKERS)
                stack.callback(host.kill)
                self.hosts.append(host)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def wait(self, true: Callable[[Evidence], object], what: str, *, pause: float = 0.05) -> bool:
        """Whether it came true in time. What did not is the judge's to find."""
        try:
            until(lambda: true(self.evidence.read()), timeout=LONG, what=what, pause=pause)
        except LateError as late:
            self.say(str(late))
            return False
        return True

    def left(self) -> int:
        """What the store holds, once nobody works."""
        log = self.folder / "left.txt"
        asked = start(self.network, SERVERS, log, "left", self.url)
        assert asked.wait(PATIENCE) == 0, log.read_text(encoding="utf-8")
        return int(log.read_text(encoding="utf-8").split()[-1])

    @contextmanager
    def _served(self) -> Iterator[str]:
        written, log = self.folder / "url", self.folder / "servers.log"
        address = self.network.address(SERVERS)
        process = start(self.network, SERVERS, log, "servers", self.kind, address, f"{self.lease:g}", str(self.folder))
        try:
            until(
                lambda: written.exists() or process.poll() is not None, timeout=STARTING, what=f"{self.kind} to start"
            )
            if not written.exists():
                raise RuntimeError(f"{self.kind} did not start:\n{log.read_text(encoding='utf-8')}")
            yield written.read_text(encoding="utf-8")
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def tell(cluster: Cluster, *, seconds: float) -> Acts:
    """All of it: ``seconds`` of load before, between and after."""
    acts, say = Acts(), cluster.say
    _, second, third = cluster.hosts
    say(f"{cluster.kind} serves; {len(cluster.hosts)} hosts start {WORKERS} workers each, and the load")
    for host in cluster.hosts:
        host.start_workers()
    for host in cluster.hosts:
        host.start_front()
    if not _all_at_work(cluster, *cluster.hosts):
        raise RuntimeError("no use going on")
    time.sleep(seconds)
    for host in cluster.hosts:
        acts.restarts.append(_restart(cluster, host))
    time.sleep(seconds)
    acts.outages.append(_kill(cluster, second))
    time.sleep(seconds)
    acts.outages.append(_cut(cluster, third))
    time.sleep(seconds)
    say("the load stops, and what is left is worked off")
    for host in cluster.hosts:
        acts.codes += host.stop_front()
    cluster.wait(lambda seen: not seen.acked.keys() - seen.settled.keys(), "all to be settled")
    for host in cluster.hosts:
        acts.codes += host.drain_workers()
    acts.left = cluster.left()
    cluster.evidence.read()
    return acts


def _restart(cluster: Cluster, host: Host) -> Restart:
    pids, began = host.pids, now()
    codes = host.drain_workers()
    drained = now() - began
    host.start_workers()
    _all_at_work(cluster, host)
    ended = now()
    cluster.say(f"{host.name}'s workers restarted: drained in {drained:.1f} s, at work after {ended - began:.1f} s")
    return Restart(host.name, pids, codes, began, ended)


def _kill(cluster: Cluster, host: Host) -> Outage:
    outage = _strike(cluster, host, "killed")
    cluster.say(f"{host.name} died (no network, SIGKILL to all it ran) with {len(outage.hand)} messages in its hands")
    _taken_over(cluster, outage)
    cluster.say(f"{host.name} starts again")
    cluster.network.heal(host.name)
    host.start_workers()
    host.start_front()
    _all_at_work(cluster, host)
    return replace(outage, ended=now())


def _cut(cluster: Cluster, host: Host) -> Outage:
    outage = _strike(cluster, host, "cut off")
    cluster.say(f"{host.name} was cut off with {len(outage.hand)} messages in its hands")
    _taken_over(cluster, outage)
    cluster.network.heal(host.name)
    cluster.say("the cable is back")
    healed = now()
    if _all_at_work(cluster, host, new_since=healed):
        cluster.say(f"{host.name}'s same workers were handling new messages {now() - healed:.1f} s later")
    return replace(outage, ended=healed)


def _strike(cluster: Cluster, host: Host, kind: Literal["killed", "cut off"]) -> Outage:
    """In the midst of its work. A dying host is cut off first, or its kernel would take leave of the servers."""
    _busy(cluster, host)
    pids, before = host.pids, now()
    cluster.network.cut(host.name)
    began = now()
    if kind == "killed":
        host.kill()
    hand = cluster.evidence.read().in_hand(pids, before, began)
    return Outage(kind, host.name, pids, before, began, hand, began)


def _busy(cluster: Cluster, host: Host) -> None:
    def at_work(seen: Evidence) -> bool:
        recent = {e.pid for events in seen.delivered.values() for e in events if e.at > now() - FRESH}
        return host.pids <= recent

    cluster.wait(at_work, f"{host.name} to be busy", pause=0.01)


def _taken_over(cluster: Cluster, outage: Outage) -> None:
    def elsewhere(seen: Evidence) -> bool:
        return all(seen.taken_over(event, outage.pids, outage.began) is not None for event in outage.hand)

    if cluster.wait(elsewhere, "others to take over"):
        cluster.say(f"they were taken over, the last one {now() - outage.began:.1f} s later")


def _all_at_work(cluster: Cluster, *hosts: Host, new_since: float = 0.0) -> bool:
    """Each of their workers handles orders; such as were placed since then."""
    pids = set[int]().union(*(host.pids for host in hosts))

    def at_work(seen: Evidence) -> bool:
        new = {event.id for event in seen.of("attempted") if event.at > new_since} if new_since else None
        return pids <= {
            event.pid
            for id, events in seen.delivered.items()
            for event in events
            if event.at > new_since and (new is None or id in new)
        }

    return cluster.wait(at_work, f"{', '.join(host.name for host in hosts)} to be at work")
