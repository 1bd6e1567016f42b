"""What happened to every message of a run of several processes that were killed, and whether it adds up.

>>> journal = Journal(path)                                   # in each worker, all on one file
>>> journal.attempted("m1", key="k"); await bus.publish(...); journal.acked("m1")
>>> journal.delivered(message.id, group="g", attempt=message.attempt); ...; journal.settled(message.id, group="g")
>>> journal.fault("kill -9 consumer")                         # in the test
>>> story = Story.read(path, seed=7, groups=["g"]); print(story.report()); story.check()

An event is one write to a file opened with O_APPEND: what was written survives the death of its writer, and the
place in the file is the order of events among all processes, whatever their clocks say.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from neuralcore.testing.history import History

__all__ = ["Journal", "Story", "nearest_rank"]

Event: TypeAlias = dict[str, Any]


class Journal:
    """Say ``attempted`` before the publish and ``acked`` after it returned, ``refused`` when it surely did not happen;
    ``delivered`` first thing in a handler, ``settled`` once its work is done for good, ``buried`` for a dead letter.
    """

    def __init__(self, path: Path | str) -> None:
        self._fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def attempted(self, id: str, *, key: str | None = None) -> None:
        """``key``: what order is promised within; with priorities, key and priority."""
        self._write("attempted", id, key=key)

    def acked(self, id: str) -> None:
        self._write("acked", id)

    def refused(self, id: str) -> None:
        self._write("refused", id)

    def delivered(self, id: str, *, group: str = "", attempt: int = 1) -> None:
        self._write("delivered", id, group=group, attempt=attempt)

    def settled(self, id: str, *, group: str = "") -> None:
        self._write("settled", id, group=group)

    def buried(self, id: str, *, group: str = "") -> None:
        self._write("buried", id, group=group)

    def fault(self, name: str) -> None:
        self._write("fault", name)

    def close(self) -> None:
        os.close(self._fd)

    def _write(self, what: str, id: str, **details: object) -> None:
        at = time.clock_gettime(time.CLOCK_MONOTONIC_RAW)
        event = {"what": what, "id": id, "at": at, **{k: v for k, v in details.items() if v is not None}}
        line = json.dumps(event).encode() + b"\n"
        if os.write(self._fd, line) != len(line):
            raise OSError(f"{what} {id} was not written whole")


@dataclass
class Story:
    seed: int | None = None
    faults: list[str] = field(default_factory=list)
    struck: list[int] = field(default_factory=list)
    """Their places in the order of events."""
    attempted: dict[str, int] = field(default_factory=dict)
    """By id, when it began: a place in the order of events."""
    acked: dict[str, int] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    groups: dict[str, History] = field(default_factory=dict)
    """Each group's history; its ``published`` and ``unknown`` are the same in all."""
    recoveries: list[float] = field(default_factory=list)
    """Of each message and group that was outstanding (acked, not settled) at a fault: seconds from the latest such
    fault until it was settled."""
    _keys: dict[str, str] = field(default_factory=dict)
    _first: defaultdict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))

    @classmethod
    def read(cls, *paths: Path, seed: int | None = None, groups: Iterable[str] = ()) -> Story:
        """``groups`` that should have got everything, so that one which got nothing is missed. With several files the
        order is by time, which a single file knows better."""
        story = cls(seed=seed)
        for group in groups:
            story._group(group)
        events = [event for path in paths for event in _events(path)]
        if len(paths) > 1:
            events.sort(key=lambda event: event["at"])
        for place, event in enumerate(events):
            story._take(place, event)
        for history in story.groups.values():
            history.published |= set(story.acked)
            history.unknown |= set(story.attempted) - set(story.acked) - story.refused
        story.recoveries = _recoveries(events, list(story.groups))
        return story

    @property
    def lost(self) -> dict[str, set[str]]:
        """Acknowledged, never delivered."""
        return self._each(lambda history: history.published - set(history.begun) - set(history.dead))

    @property
    def unsettled(self) -> dict[str, set[str]]:
        """Acknowledged, and neither settled nor dead-lettered: lost too, once a run was given time to end."""
        return self._each(lambda history: history.lost)

    @property
    def duplicated(self) -> dict[str, set[str]]:
        """Settled more than once, or settled and dead-lettered. Being delivered again is no fault: ``redelivered``."""
        return self._each(lambda history: history.repeated | history.undead)

    @property
    def redelivered(self) -> int:
        return sum(sum(count - 1 for count in history.begun.values()) for history in self.groups.values())

    @property
    def phantoms(self) -> dict[str, set[str]]:
        """Delivered, and never attempted, or refused."""
        return self._each(lambda history: history.phantoms)

    @property
    def reordered(self) -> dict[str, set[str]]:
        """First delivered after one of the same key that was attempted only when they had been acknowledged."""
        return {group: set(found) for group in self.groups if (found := list(self._late(group)))}

    def check(self) -> None:
        """Raises AssertionError with the report when anything was lost, unsettled, made up, refused in error or
        reordered. Duplicates are for the caller to judge: handlers run at least once."""
        wrong: dict[str, dict[str, set[str]]]
        wrong = {name: getattr(self, name) for name in ("lost", "unsettled", "phantoms", "reordered")}
        shown = [f"{what} {group!r}: {sorted(ids)[:5]}" for what, by in wrong.items() for group, ids in by.items()]
        assert not shown, "\n".join([self.report(), *shown])

    def report(self) -> str:
        faults = ", ".join(f"{name} ×{count}" for name, count in Counter(self.faults).items()) or "none"
        counts = {
            "attempted": len(self.attempted),
            "acked": len(self.acked),
            "refused": len(self.refused),
            "delivered": sum(len(history.begun) for history in self.groups.values()),
            "settled": sum(len(history.done) for history in self.groups.values()),
            "dead": sum(len(history.dead) for history in self.groups.values()),
            "lost": _count(self.lost),
            "unsettled": _count(self.unsettled),
            "dup": _count(self.duplicated),
            "redelivered": self.redelivered,
            "phantom": _count(self.phantoms),
            "reordered": _count(self.reordered),
        }
        told = " ".join(f"{name}={count}" for name, count in counts.items())
        recovery = f"p50={self.recovery(50):.3f}s p99={self.recovery(99):.3f}s" if self.recoveries else "none measured"
        return f"seed={self.seed} faults=[{faults}] {told} recovery {recovery}"

    def recovery(self, percentile: float) -> float:
        """Seconds; 0 when nothing was outstanding at any fault."""
        return nearest_rank(self.recoveries, percentile)

    def _each(self, found: Callable[[History], set[str]]) -> dict[str, set[str]]:
        return {group: ids for group, history in self.groups.items() if (ids := found(history))}

    def _group(self, name: str) -> History:
        return self.groups.setdefault(name, History())

    def _take(self, place: int, event: Event) -> None:
        id = event["id"]
        match event["what"]:
            case "fault":
                self.faults.append(id)
                self.struck.append(place)
            case "attempted":
                self.attempted.setdefault(id, place)
                if "key" in event:
                    self._keys[id] = event["key"]
            case "acked":
                self.acked.setdefault(id, place)
                self.refused.discard(id)
            case "refused":
                if id not in self.acked:
                    self.refused.add(id)
            case "delivered":
                history = self._group(event["group"])
                history.begun[id] += 1
                history.attempts.setdefault(id, []).append(event["attempt"])
                self._first[event["group"]].setdefault(id)
            case "settled":
                self._group(event["group"]).done[id] += 1
            case "buried":
                self._group(event["group"]).dead[id] += 1

    def _late(self, group: str) -> Iterator[str]:
        latest: dict[str, int] = {}
        for id in self._first[group]:
            key = self._keys.get(id)
            if key is None:
                continue
            if id in self.acked and latest.get(key, -1) > self.acked[id]:
                yield id
            latest[key] = max(latest.get(key, -1), self.attempted.get(id, -1))


def _events(path: Path) -> Iterator[Event]:
    for line in path.read_bytes().split(b"\n")[:-1]:  # a last line without its end was never written
        yield json.loads(line)


def _recoveries(events: list[Event], groups: list[str]) -> list[float]:
    outstanding: set[tuple[str, str]] = set()
    over: set[tuple[str, str]] = set()
    struck: dict[tuple[str, str], float] = {}
    found = []
    for event in events:
        match event["what"]:
            case "acked":
                outstanding |= {(group, event["id"]) for group in groups} - over
            case "fault":
                struck.update((one, event["at"]) for one in outstanding)
            case "settled" | "buried":
                one = (event["group"], event["id"])
                over.add(one)
                outstanding.discard(one)
                if one in struck:
                    found.append(event["at"] - struck.pop(one))
    return found


def nearest_rank(values: Sequence[float], percentile: float) -> float:
    """0 when there are none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percentile / 100) - 1)] if ordered else 0.0


def _count(found: dict[str, set[str]]) -> int:
    return sum(map(len, found.values()))
