"""What the processes saw, in files that owe nothing to the bus: one for each host, one line for each event.

A line is one write to a file opened with O_APPEND: what was written survives the death of its writer.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["Event", "Evidence", "Log", "now"]


def now() -> float:
    """The clock of all hosts: they are one machine."""
    return time.clock_gettime(time.CLOCK_MONOTONIC_RAW)


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """``what`` is, of orders, ``attempted``, ``acked`` (by the publisher), ``delivered`` (a handler began), ``settled``
    (its work is done); of questions ``asked``, ``answered``, ``unanswered``; of a process ``started``, ``closed``."""

    what: str
    id: str
    at: float
    host: str
    pid: int
    group: str = ""
    attempt: int = 0
    late: bool = False
    """The lease was lost while the handler ran."""
    payload: Any = None


class Log:
    """The host's file, which its processes share."""

    def __init__(self, path: Path, host: str) -> None:
        self.host = host
        self._encoder = msgspec.json.Encoder()
        self._fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def write(
        self, what: str, id: str, *, group: str = "", attempt: int = 0, late: bool = False, payload: Any = None
    ) -> None:
        event = Event(what, id, now(), self.host, os.getpid(), group, attempt, late, payload)
        line = self._encoder.encode(event) + b"\n"
        if os.write(self._fd, line) != len(line):
            raise OSError(f"{what} {id} was not written whole")


class Evidence:
    """All hosts' files in a folder, as far as they were written when ``read`` was last called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[Event] = []
        self.acked: dict[str, float] = {}
        """When, by id."""
        self.delivered: defaultdict[str, list[Event]] = defaultdict(list)
        self.settled: defaultdict[str, list[Event]] = defaultdict(list)
        self._decoder = msgspec.json.Decoder(Event)
        self._read: defaultdict[Path, int] = defaultdict(int)

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*.jsonl"))

    def path(self, host: str) -> Path:
        return self.folder / f"{host}.jsonl"

    def read(self) -> Evidence:
        for path in self.files:
            with path.open("rb") as file:
                file.seek(self._read[path])
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read[path] += len(whole)
            for line in whole.splitlines():
                self._take(self._decoder.decode(line))
        return self

    def of(self, what: str) -> list[Event]:
        return [event for event in self.events if event.what == what]

    def unfinished(self, pids: set[int]) -> list[Event]:
        """Deliveries whose handlers began in these processes and did not get to their end."""
        ended = {(event.id, event.pid, event.attempt) for events in self.settled.values() for event in events}
        return [
            event
            for events in self.delivered.values()
            for event in events
            if event.pid in pids and (event.id, event.pid, event.attempt) not in ended
        ]

    def in_hand(self, pids: set[int], before: float, after: float) -> list[Event]:
        """Deliveries that began in these processes before, and had not got to their end after."""
        ended = {(e.id, e.pid) for events in self.settled.values() for e in events if e.at < after}
        begun = (e for events in self.delivered.values() for e in events if e.pid in pids and e.at < before)
        return [event for event in begun if (event.id, event.pid) not in ended]

    def taken_over(self, event: Event, pids: set[int], since: float) -> float | None:
        """When another process than these began with the same message."""
        return min((e.at for e in self.delivered[event.id] if e.at > since and e.pid not in pids), default=None)

    def _take(self, event: Event) -> None:
        self.events.append(event)
        match event.what:
            case "acked":
                self.acked.setdefault(event.id, event.at)
            case "delivered":
                self.delivered[event.id].append(event)
            case "settled":
                self.settled[event.id].append(event)
