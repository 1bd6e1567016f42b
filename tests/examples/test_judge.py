"""The judge finds what is wrong: runs that never were, one with nothing wrong and others with one thing each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from examples.cluster.evidence import Event, Evidence
from examples.cluster.judge import Verdict
from examples.cluster.story import Acts, Outage, Restart

LEASE = 3.0
OLD, KILLED, CUT, OTHER = 1, 2, 3, 4
"""Process ids of workers: the first was drained."""
REPORT = {"drained": True, "interrupted": 0}


def order(id: str, at: float, *workers: int, took: float = 0.2, ends: bool = True) -> list[Event]:
    """Placed at a time, and handled by each of those, the first one at once and others 3.1 s later each."""
    found = [Event("attempted", id, at, "h1", 9, payload={"n": id}), Event("acked", id, at, "h1", 9)]
    for place, pid in enumerate(workers):
        began = at + place * 3.1
        found.append(Event("delivered", id, began, f"h{pid}", pid, "packing", place + 1, payload={"n": id}))
        if ends or place:
            found.append(Event("settled", id, began + took, f"h{pid}", pid, "packing", place + 1))
    return found


def question(id: str, at: float, host: str, by: str) -> list[Event]:
    return [Event("asked", id, at, host, 9), Event("answered", id, at + 0.1, host, 9, payload={"host": by})]


IN_HAND = [event for id, pid in (("killed", KILLED), ("cut", CUT)) for event in order(id, 0.0, pid)[2:3]]
EVENTS = [
    *order("early", 10.0, OLD),
    Event("closed", "worker", 10.5, "h1", OLD, payload=REPORT),
    *order("killed", 20.0, KILLED, OTHER, ends=False),
    *order("cut", 30.0, CUT, OTHER),
    *order("later", 41.0, CUT),
    *question("q1", 10.1, "h1", "h2"),
    *question("q2", 12.0, "h1", "h1"),
]
ACTS = Acts(
    restarts=[Restart("h1", {OLD}, [0], 9.9, 16.0)],
    outages=[
        Outage("killed", "h2", {KILLED}, 20.1, 20.1, IN_HAND[:1], 25.0),
        Outage("cut off", "h3", {CUT}, 30.1, 30.1, IN_HAND[1:], 40.0),
    ],
    left=0,
)


def without(what: str, id: str) -> Callable[[list[Event]], list[Event]]:
    return lambda events: [event for event in events if (event.what, event.id) != (what, id)]


def plus(*more: Event) -> Callable[[list[Event]], list[Event]]:
    return lambda events: [*events, *more]


def found(folder: Path, events: list[Event], acts: Acts = ACTS) -> list[str]:
    (folder / "h1.jsonl").write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in events))
    return [check.what for check in Verdict(Evidence(folder), acts, lease=LEASE).checks() if not check.met]


def test_a_good_run(tmp_path: Path) -> None:
    assert found(tmp_path, EVENTS) == []
    table = Verdict(Evidence(tmp_path), ACTS, lease=LEASE).table()
    assert [line.split() for line in table.splitlines()[:5]] == [
        ["published", "4"],
        ["acknowledged", "4"],
        ["settled", "4"],
        ["lost", "0"],
        ["duplicated", "1"],
    ]
    assert "h2 killed: take-over of 1   3.0 to 3.0 s" in table


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (plus(*order("gone", 15.0)), ["acknowledged and lost"]),
        (plus(*order("unfinished", 15.0, OTHER, ends=False)), ["acknowledged and lost"]),
        (without("attempted", "later"), ["handled, but never published like that", "h3 takes part again"]),
        (plus(*order("twice", 12.0, OTHER, OTHER)), ["handled twice in the rolling restart"]),
        (plus(*order("twice", 32.0, CUT, OTHER)), []),
        (without("settled", "early"), ["acknowledged and lost", "h1 was restarted under load"]),
        (without("closed", "worker"), ["h1 was restarted under load"]),
        (without("answered", "q1"), ["other hosts answered h1"]),
        (plus(Event("unanswered", "q2", 22.0, "h1", 9)), ["asked during the rolling restart and not answered"]),
        (without("delivered", "later"), ["h3 takes part again"]),
    ],
)
def test_what_is_wrong(change: Callable[[list[Event]], list[Event]], says: list[str], tmp_path: Path) -> None:
    assert found(tmp_path, change(EVENTS)) == says


def test_other_contents_are_a_phantom(tmp_path: Path) -> None:
    changed = [msgspec.structs.replace(e, payload={"n": "?"}) if e is EVENTS[2] else e for e in EVENTS]
    assert found(tmp_path, changed) == ["handled, but never published like that"]


@pytest.mark.parametrize(("at", "count"), [(32.0, 0), (26.0, 1), (45.0, 1)])
def test_duplicates_that_no_outage_explains(at: float, count: int, tmp_path: Path) -> None:
    found(tmp_path, [*EVENTS, *order("twice", at, CUT, OTHER)])
    verdict = Verdict(Evidence(tmp_path), ACTS, lease=LEASE)
    assert len(verdict.duplicated) == 2
    assert len(verdict.unexplained) == count


def test_a_late_take_over(tmp_path: Path) -> None:
    killed = replace(ACTS.outages[0], before=16.0, began=16.0)
    late = replace(ACTS, outages=[killed, ACTS.outages[1]])
    assert found(tmp_path, EVENTS, late) == ["what h2 had in hand when it was killed was taken over"]


def test_what_is_left(tmp_path: Path) -> None:
    assert found(tmp_path, EVENTS, replace(ACTS, left=2)) == ["nothing is left in the store"]


def test_a_line_that_is_being_written_is_read_later(tmp_path: Path) -> None:
    line = msgspec.json.encode(EVENTS[1]) + b"\n"
    evidence, path = Evidence(tmp_path), tmp_path / "h1.jsonl"
    path.write_bytes(line[:20])
    assert evidence.read().acked == {}
    path.write_bytes(line)
    assert evidence.read().acked == {"early": 10.0}
    assert len(evidence.read().events) == 1
