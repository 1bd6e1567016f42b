"""The report of a run of fault tests: a line each, one table for all."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.faults.history import Journal, Story
from tests.faults.report import Entry, Figures, merged, table


def told(tmp_path: Path) -> Figures:
    journal = Journal(tmp_path / "journal")
    for id in ("a", "b", "c"):
        journal.attempted(id)
        journal.acked(id)
    journal.fault("kill -9 consumer")
    for _ in range(2):
        journal.delivered("a", group="g")
        journal.settled("a", group="g")
    journal.delivered("b", group="g")
    journal.delivered("nobody's", group="g")
    journal.close()
    return Figures.of(Story.read(tmp_path / "journal", seed=7, groups=["g"]), "crashes=1")


def test_a_line_has_every_figure(tmp_path: Path) -> None:
    """What was begun and never settled counts as lost too."""
    figures = told(tmp_path)
    assert figures.line().startswith(
        "seed=7 faults=[kill -9 consumer ×1] attempted=3 acked=3 delivered=3 settled=1 lost=2 duplicated=1 phantom=1"
        " recovery p50=0.0"
    )
    assert figures.line().endswith(" | redelivered=1 crashes=1")
    assert len(figures.recoveries) == 1


def test_what_a_test_has_not_is_shown_as_such() -> None:
    line = Figures(seed=8, faults=Counter({"flip": 3}), attempted=2).line()
    assert line == (
        "seed=8 faults=[flip ×3] attempted=2 acked=– delivered=– settled=– lost=– duplicated=– phantom=–"
        " recovery p50=– p99=–"
    )


def test_rounds_of_one_test_are_one_line_of_the_table() -> None:
    rounds = [
        Figures(seed=7, faults=Counter({"flip": 3}), attempted=2, recoveries=[0.1]),
        Figures(seed=7, faults=Counter({"flip": 1}), attempted=3, lost=1, recoveries=[0.3, 0.2]),
    ]
    others = [
        Entry(2, "x", Figures(seed=7)),
        Entry(1, "y", rounds[0]),
        Entry(2, "x", rounds[1]),
        Entry(1, "y", rounds[1]),
    ]
    found = merged(others)
    assert [(entry.row, entry.fault) for entry in found] == [(1, "y"), (2, "x")]
    (one, _) = found
    assert one.figures.faults.total() == 4
    assert (one.figures.attempted, one.figures.acked, one.figures.lost) == (5, None, 1)
    assert one.figures.recovery() == ("0.200s", "0.300s")


def test_the_table_names_promise_and_fault() -> None:
    figures = Figures(seed=7, faults=Counter({"kill": 200}), attempted=9, acked=8, lost=0)
    lines = table([Entry(1, "kill -9 producer", figures)], title="Seed 7.").splitlines()
    assert lines[0] == "Seed 7."
    assert lines[4].startswith("| **1** | **what was acknowledged survives its producer** |")
    assert lines[5] == "|  | kill -9 producer | 200 | 9 | 8 | – | – | 0 | – | – | – | – |"
    assert len({line.count("|") for line in lines[2:]}) == 1
