"""The thread that keeps a client alive: it needs no event loop, so that nothing which blocks one can cost a lease.

It extends the leases, recovers those of the dead, looks for what other processes have stored, and tidies up.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from neuralcore.messaging.errors import Unavailable
from neuralcore.messaging.forking import NoFork
from neuralcore_transports.sqlite.checkpoint import Checkpointer
from neuralcore_transports.sqlite.client import StoreClient
from neuralcore_transports.sqlite.clock import StoreClock
from neuralcore_transports.sqlite.errors import SQL_ERRORS, translated
from neuralcore_transports.sqlite.liveness import Liveness
from neuralcore_transports.sqlite.log import log_of
from neuralcore_transports.sqlite.opening import open_book
from neuralcore_transports.sqlite.options import SqliteOptions
from neuralcore_transports.sqlite.store.store import Store
from neuralcore_transports.sqlite.watch import Watch

__all__ = ["Events", "Keeper"]

_LOOK_FOR_DEAD: Final = 0.25
_CHECKPOINT: Final = 0.01
_LOOK: Final = 0.05
"""At least so often, however busy the client is: it does not see everything that the keeper looks for."""
_TIDY: Final = 1.0
_TIDY_IDLE: Final = 5.0
"""What only grows old is looked through so often."""
_TIDY_ROWS: Final = 500
_NEWS: Final = "SELECT next, registry, EXISTS (SELECT 1 FROM nc_lost WHERE owner = ?) FROM nc_store"

log = logging.getLogger("neuralcore.sqlite")


@dataclass(frozen=True, slots=True)
class Events:
    """What the keeper tells, from its thread."""

    changed: Callable[[], None]
    """Somebody has written to the file."""
    channels_changed: Callable[[], None]
    """The registry of channels has grown or shrunk."""
    lost: Callable[[Sequence[int]], None]
    """Leases of ours ended against our will."""
    given_up: Callable[[int], None]
    """We had fallen silent for so long that all our leases are gone; the number is who we are from here on."""
    failed: Callable[[Exception], None]
    """Something could not be done; it is tried again."""


class Keeper:
    def __init__(
        self,
        options: SqliteOptions,
        clock: StoreClock,
        liveness: Liveness,
        name: str,
        owner: int,
        client: StoreClient,
        events: Events,
    ) -> None:
        """``client``: what it has written is no news, and what its transactions have seen need not be looked for."""
        self._options = options
        self._clock = clock
        self._liveness = liveness
        self._name = name
        self._owner = owner
        self._client = client
        self._events = events
        self._no_fork = NoFork()
        self._stop = threading.Event()
        self._store: Store
        self._connection: sqlite3.Connection
        self._checkpointer: Checkpointer
        self._watch: Watch
        self._made: ExitStack
        """Closes what the thread uses."""
        self._version = self._tidied = -1
        self._grown = True
        """The log, since it was last looked at."""
        self._tidy_again = 0.0
        self._begun = -1
        self._look_again = 0.0
        self._registry = -1
        self._channels: object = None
        self._due: dict[Callable[[], None], float] = {}
        self._thread = threading.Thread(target=self._run, name=f"{name} keeper", daemon=True)

    def start(self) -> None:
        """Raises TransportError."""
        path = self._options.path
        with self._no_fork, ExitStack() as made:
            book = open_book(self._options)
            made.callback(book.connection.close)
            self._connection = book.connection
            self._store = Store(book, self._options.limits())
            try:
                self._checkpointer = Checkpointer(self._options)
                made.callback(self._checkpointer.close)
                self._channels = self._registered()
                (self._version,) = self._connection.execute("PRAGMA data_version").fetchone()
            except SQL_ERRORS as error:
                raise translated(error, str(path), self._options.busy) from error
            except OSError as error:
                raise Unavailable("sqlite", f"its log cannot be read: {error}") from error
            self._watch = Watch(log_of(path), self._options.poll)
            made.callback(self._watch.close)
            self._thread.start()
            self._made = made.pop_all()

    def stop(self) -> None:
        """Blocks until its thread has ended."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        every = {
            self._beat: self._options.lease / 4,
            self._recover: _LOOK_FOR_DEAD,
            self._tidy: _TIDY,
            self._checkpoint: _CHECKPOINT,
        }
        self._attempt(self._checkpoint)
        now = time.monotonic()
        self._due = {task: now + seconds for task, seconds in every.items()}
        try:
            while not self._stop.is_set():
                self._watch.wait()
                self._attempt(self._look)
                now = time.monotonic()
                for task, seconds in every.items():
                    if self._due[task] <= now:
                        self._due[task] = now + seconds
                        self._attempt(task)
        finally:
            with self._no_fork:
                self._made.close()

    def _attempt(self, task: Callable[[], None]) -> None:
        try:
            with self._no_fork:
                task()
        except Exception as error:  # noqa: BLE001 - the keeper outlives whatever happens to the file
            self._events.failed(error)

    def _look(self) -> None:
        now, begun = time.monotonic(), self._client.begun
        if begun != self._begun and now < self._look_again:
            self._begun, self._grown = begun, True
            return
        self._begun, self._look_again = begun, now + _LOOK
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return
        self._version = version
        self._watch.saw_a_change()
        self._grown = True
        following, registry, lost = self._connection.execute(_NEWS, (self._owner,)).fetchone()
        if following != self._client.written:
            self._events.changed()
        if lost:
            self._events.lost(self._store.take_lost(self._owner))
        if registry != self._registry:
            self._look_at_channels()
            self._registry = registry

    def _look_at_channels(self) -> None:
        found = self._registered()
        if found != self._channels:
            self._channels = found
            self._events.channels_changed()

    def _checkpoint(self) -> None:
        if self._grown:
            self._grown = False  # also where looking fails
            self._grown = self._checkpointer.look()

    def _registered(self) -> object:
        """What differs whenever a channel has come or gone."""
        return self._connection.execute("SELECT count(*), max(id) FROM nc_channel").fetchone()

    def _beat(self) -> None:
        if self._store.beat(self._owner, self._clock.now(), self._clock.remember):
            return
        old = self._owner
        self._owner = self._store.connect(self._name, self._clock.boot, self._clock.now(), self._liveness.hold)
        self._liveness.let_go(old)
        self._events.given_up(self._owner)

    def _recover(self) -> None:
        for owner, boot in self._store.others(self._owner):
            if boot != self._clock.boot or not self._liveness.is_alive(owner):
                self._store.give_up(owner, self._clock.now())
                self._events.changed()
        if self._store.overdue(self._clock.now()):
            self._beat()  # ours first: if it was this process that stood still, that is for others to judge
            self._store.advance(self._clock.now())
            self._events.lost(self._store.take_lost(self._owner))
            self._events.changed()

    def _tidy(self) -> None:
        now = time.monotonic()
        if self._version == self._tidied and now < self._tidy_again:
            return
        self._tidied, self._tidy_again = self._version, now + _TIDY_IDLE
        while self._store.tidy(self._clock.now(), _TIDY_ROWS) >= _TIDY_ROWS and not self._stop.wait(0.005):
            self._checkpointer.look()
