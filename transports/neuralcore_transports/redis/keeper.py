"""The thread that keeps a client alive: it needs no event loop, so that nothing which blocks one can cost a lease."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from redis.exceptions import ResponseError

from neuralcore.messaging.forking import NoFork
from neuralcore_transports.redis.blocking import BlockingServers
from neuralcore_transports.redis.errors import translated
from neuralcore_transports.redis.layout import Layout
from neuralcore_transports.redis.leases import Leases, lease_of
from neuralcore_transports.redis.options import RedisOptions
from neuralcore_transports.redis.scripts import CHANNEL, INBOX, REGISTRY, Dialect, Script
from neuralcore_transports.redis.servers import unknown

__all__ = ["Beat", "Events", "Keeper"]

_BEATS: Final = 4
"""In a lease."""
_FLUSHES: Final = 3
"""Of scripts, that may come between teaching one and using it."""


@dataclass(frozen=True, slots=True)
class Beat:
    """What a beat has found."""

    known: bool
    """The server had not forgotten this client."""
    version: int
    """Of the registry of channels."""
    overdue: Mapping[str, float]
    """Other clients that have fallen silent, and for how many seconds they have been."""


@dataclass(frozen=True, slots=True)
class Events:
    """Called on the keeper's thread."""

    beat: Callable[[Beat], None]
    held_too_long: Callable[[Sequence[Any]], None]
    """Deliveries whose leases it has given up."""
    trimmed: Callable[[str, int], None]
    """The base of their channel, and how many of them somebody else has deleted."""
    failed: Callable[[Exception], None]


class Keeper:
    def __init__(
        self,
        options: RedisOptions,
        layout: Layout,
        session: str,
        dialect: Dialect,
        leases: Leases,
        events: Events,
    ) -> None:
        self._options = options
        self._layout = layout
        self._session = session
        self._dialect = dialect
        self._leases = leases
        self._events = events
        self._stop = threading.Event()
        self._no_fork = NoFork()
        self.inboxes: tuple[str, ...] = ()
        """Bases of those that are to be kept."""
        self._servers = BlockingServers(options, timeout=min(options.timeout, options.lease / _BEATS))
        self._thread = threading.Thread(target=self._run, name=f"{session} keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Blocks until its thread has ended."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        pause = 0.0
        try:
            while not self._stop.wait(pause):
                began = time.monotonic()
                try:
                    with self._no_fork:
                        self._beat()
                    pause = max(0.0, self._options.lease / _BEATS - (time.monotonic() - began))
                except Exception as error:  # noqa: BLE001 - the keeper outlives whatever happens to the server
                    self._events.failed(translated(error, self._options.shown))
                    self._drop()
                    pause = min(0.25, self._options.lease / _BEATS)
        finally:
            self._drop()

    def _drop(self) -> None:
        with self._no_fork:
            self._servers.close()

    def _script(self, script: Script, key: str, *parts: Any) -> Any:
        for _ in range(_FLUSHES):
            try:
                return self._servers.script(self._dialect, script, key, *parts)
            except ResponseError as error:
                if not unknown(error):
                    raise
            # The other connections use functions, where they can; this one must do without rights to load any.
            self._dialect = replace(self._dialect, functions=False)
            self._servers.teach(self._dialect, script, key)
        return self._servers.script(self._dialect, script, key, *parts)

    def _beat(self) -> None:
        layout, options = self._layout, self._options
        known, version, overdue = self._script(
            REGISTRY,
            f"{layout.registry}:channels",
            "", layout.prefix, "beat", self._session, round(options.lease * 1000), 0,
        )  # fmt: skip
        found = {name.decode(): late / 1000 for name, late in zip(overdue[::2], overdue[1::2], strict=True)}
        self._events.beat(Beat(bool(known), version, found))
        for base in self.inboxes:
            self._script(INBOX, f"{base}:open", "keep", base, self._session, self._ttl())
        self._give_up()

    def _ttl(self) -> int:
        return round(max(self._options.session_ttl, self._options.lease) * 1000)

    def _give_up(self) -> None:
        """Of what was held for too long, the leases are no longer extended: they end."""
        now = time.monotonic()
        for delivery in self._leases.all():
            lease = lease_of(delivery)
            if lease is None or now - lease.since < self._options.max_hold:
                continue
            reply = self._script(
                CHANNEL,
                f"{lease.base}:meta",
                "", self._layout.prefix, "expire", lease.base, lease.group, lease.consumer,
                lease.priority, lease.entry,
            )  # fmt: skip
            self._events.held_too_long([delivery])
            if reply[0] == b"ok" and reply[2]:
                self._events.trimmed(lease.base, reply[2])
