"""A judge must see each kind of wrong, and nothing where nothing is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.history import Journal, Story
from tests.faults.processes import Moments, Worker
from tests.faults.sqlite_writer import ROOT


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events"


@pytest.fixture
def journal(path: Path):
    journal = Journal(path)
    yield journal
    journal.close()


def publish(journal: Journal, *ids: str, key: str | None = None) -> None:
    for id in ids:
        journal.attempted(id, key=key)
        journal.acked(id)


def handle(journal: Journal, *ids: str, group: str = "g") -> None:
    for id in ids:
        journal.delivered(id, group=group)
        journal.settled(id, group=group)


def test_a_good_run_is_good(journal: Journal, path: Path) -> None:
    publish(journal, "a", "b", key="k")
    handle(journal, "a", "b")
    story = Story.read(path, seed=7)
    story.check()
    assert story.report() == (
        "seed=7 faults=[none] attempted=2 acked=2 refused=0 delivered=2 settled=2 dead=0 lost=0 unsettled=0 dup=0 "
        "redelivered=0 phantom=0 reordered=0 recovery none measured"
    )


def test_the_acked_and_never_delivered_are_lost_and_the_unacked_are_not(journal: Journal, path: Path) -> None:
    publish(journal, "a", "b", "dead")
    journal.attempted("unknown")
    handle(journal, "a")
    journal.buried("dead", group="g")
    story = Story.read(path)
    assert story.lost == {"g": {"b"}}
    with pytest.raises(AssertionError, match="lost=1"):
        story.check()


def test_a_group_that_got_nothing_lost_everything(journal: Journal, path: Path) -> None:
    publish(journal, "a")
    handle(journal, "a", group="g")
    assert Story.read(path).lost == {}
    assert Story.read(path, groups=["g", "h"]).lost == {"h": {"a"}}


def test_delivered_and_never_done_is_unsettled_and_not_lost(journal: Journal, path: Path) -> None:
    publish(journal, "a")
    journal.delivered("a", group="g")
    story = Story.read(path)
    assert (story.lost, story.unsettled) == ({}, {"g": {"a"}})
    with pytest.raises(AssertionError):
        story.check()


def test_settled_twice_is_a_duplicate_and_delivered_twice_is_not(journal: Journal, path: Path) -> None:
    publish(journal, "a", "b")
    journal.delivered("a", group="g")
    handle(journal, "a", "b", "b")
    story = Story.read(path)
    assert story.duplicated == {"g": {"b"}}
    assert story.redelivered == 2
    story.check()


def test_phantoms_were_never_attempted_or_were_refused(journal: Journal, path: Path) -> None:
    journal.attempted("unknown")
    journal.attempted("refused")
    journal.refused("refused")
    handle(journal, "unknown", "refused", "invented")
    assert Story.read(path).phantoms == {"g": {"refused", "invented"}}


def test_order_is_judged_within_a_key_and_only_where_it_was_fixed(journal: Journal, path: Path) -> None:
    publish(journal, "a", "b", key="k")
    publish(journal, "x", key="other")
    journal.attempted("p", key="k2")
    journal.attempted("q", key="k2")  # together: either may come first
    journal.acked("p")
    journal.acked("q")
    handle(journal, "x", "b", "a", "q", "p")
    assert Story.read(path).reordered == {"g": {"a"}}


def test_recovery_is_measured_of_what_was_outstanding(journal: Journal, path: Path) -> None:
    publish(journal, "before", "during")
    handle(journal, "before")
    journal.fault("kill -9")
    publish(journal, "after")
    handle(journal, "during", "after")
    story = Story.read(path)
    assert len(story.recoveries) == 1
    assert 0 < story.recovery(50) == story.recovery(99) < 5
    assert "faults=[kill -9 ×1]" in story.report()


def test_percentiles_are_nearest_ranks() -> None:
    story = Story(recoveries=[n / 100 for n in range(100, 0, -1)])
    assert (story.recovery(50), story.recovery(99), story.recovery(100)) == (0.5, 0.99, 1.0)
    assert Story().recovery(99) == 0


WORKER = """
import sys
from tests.faults.history import Journal
journal, name = Journal(sys.argv[1]), sys.argv[2]
for n in range(10**9):
    journal.attempted(f"{name}{n}")
    journal.acked(f"{name}{n}")
    print(n, flush=True)
"""


def test_nothing_written_is_lost_to_a_kill(path: Path) -> None:
    moments, said = Moments(11), {}
    environment = {"PYTHONPATH": str(ROOT)}
    with Worker.python(WORKER, str(path), "a", env=environment) as a:
        with Worker.python(WORKER, str(path), "b", env=environment) as b:
            a.expect("100")
            b.expect("100")
            b.kill_after(moments.next(0.01, 0.05))
            said["b"] = b.lines
        a.kill()
        said["a"] = a.lines
    acked = set(Story.read(path).acked)
    assert {f"{name}{n}" for name, lines in said.items() for n in lines} <= acked
