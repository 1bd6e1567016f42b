"""The page of promises and set-ups follows from what was recorded, and is in step with the suite and the tests."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuralcore.testing.conformance import catalogue
from neuralcore.testing.conformance.suite import TransportConformance
from tests.conformance.__main__ import PAGE, RECORDS, ROOT
from tests.conformance.page import page, terminal, totals
from tests.conformance.records import Column, Mark, gaps, load, mark, merged, save
from tests.conformance.setups import SETUPS, chosen

NAMES = [str(promise) for promise in catalogue()]
UNNAMED = {"TestLogic"}
"""Of a model, not of a transport."""


def rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("|").replace("\\|", "/").split("|")]


def suites(kind: type = TransportConformance) -> Iterator[type[TransportConformance]]:
    for found in kind.__subclasses__():
        yield found
        yield from suites(found)


def made_up(**results: str) -> dict[str, Column]:
    """Every promise kept on every set-up, but for those of one of them; ``__`` for the dot in a name."""
    kept = dict.fromkeys(NAMES, "passed")
    others = {name.replace("__", "."): result for name, result in results.items()}
    found = {setup.name: Column("Server 1.2", "3.12.1", kept) for setup in SETUPS}
    return {**found, "sqlite": Column("SQLite 3", "3.12.1", {**kept, **others})}


def test_the_page_is_what_was_recorded():
    assert PAGE.read_text(encoding="utf-8") == page(load(RECORDS)), "python -m tests.conformance --page writes it again"


def test_every_promise_was_asked_on_every_set_up_and_none_failed():
    if found := gaps(load(RECORDS)):
        pytest.fail("\n".join(["make conformance SETUPS=… ONLY=… runs what is missing:", *found]), pytrace=False)


def test_every_promise_has_a_row_and_no_cell_is_empty():
    found = {row[0]: row for row in rows(PAGE.read_text(encoding="utf-8")) if len(row) == len(SETUPS) + 1}
    for promise in catalogue():
        assert promise.text.replace("|", "/") in found, promise
    for row in found.values():
        assert all(row), row


def test_every_set_up_of_the_tests_has_a_column():
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if "(TransportConformance)" in path.read_text(encoding="utf-8") and path != Path(__file__):
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    tests = [found for found in suites() if found.__name__.startswith("Test") and found.__name__ not in UNNAMED]
    assert {found.setup for found in tests} | {"native", "fallback"} == {setup.name for setup in SETUPS}
    for found in tests:
        (setup, *_) = [setup for setup in SETUPS if setup.name == found.setup]
        assert setup.test == f"{'/'.join(found.__module__.split('.'))}.py::{found.__name__}"


def test_marks():
    column = Column(
        results={
            "a.kept": "passed",
            "a.broken": "failed: why: it is",
            "a.left": "skipped: not declared: x",
            "a.bare": "failed",
        }
    )
    assert mark(column, "a.kept") == (Mark.PASSED, "")
    assert mark(column, "a.broken") == (Mark.FAILED, "why: it is")
    assert mark(column, "a.left") == (Mark.SKIPPED, "not declared: x")
    assert mark(column, "a.bare") == (Mark.FAILED, "nothing was said")
    assert mark(column, "a.new") == (Mark.NOT_RUN, "not run")


@pytest.mark.parametrize(
    ("result", "bad"),
    [
        ("passed", False),
        ("skipped: not declared: durable", False),
        ("skipped: unproven: the harness cannot restart the broker", False),
        ("skipped: left out: for others", False),
        ("skipped: left out", True),
        ("skipped: not found: redis-8.2", True),
        ("failed: known: a fault", True),
        ("failed: setup: OSError", True),
    ],
)
def test_what_a_published_page_may_say(result, bad):
    assert len(gaps(made_up(order__fifo=result))) == bad


def test_a_promise_that_was_not_run_is_told():
    records = made_up()
    del records["kafka-one"]
    assert gaps(records) == [f"? kafka-one {name}: not run" for name in NAMES]
    assert "| Kafka, one broker | – | – | 0 | 0 | 174 |".replace("174", str(len(NAMES))) in page(records)


def test_a_cell_that_is_not_passed_has_its_reason_below():
    text = page(
        made_up(order__fifo="failed: <it> | is", order__strict="skipped: x", keys__order_and_one_at_a_time="skipped: x")
    )
    order = text.partition("## Order")[2].partition("##")[0]
    assert "✗&nbsp;a" in order
    assert "- a: &lt;it> \\| is\n- b: x\n" in order
    assert "- a: x\n" in text.partition("## Keys")[2].partition("##")[0]
    assert "| SQLite | SQLite 3 | 3.12.1 | 171 | 1 | 2 |".replace("171", str(len(NAMES) - 3)) in text


def test_all_rows_of_a_table_are_of_one_length():
    lengths = {len(row) for row in rows(page(made_up(order__fifo="failed: a | b")))}
    assert lengths == {len(SETUPS) + 1, 6}


def test_totals():
    found = totals(made_up(order__fifo="failed: x", order__strict="skipped: y")["sqlite"])
    assert found == {Mark.PASSED: len(NAMES) - 2, Mark.FAILED: 1, Mark.SKIPPED: 1}


def test_in_a_terminal():
    lines = terminal(made_up(order__fifo="failed: x"), chosen(["native", "sqlite"])).splitlines()
    assert lines[:2] == ["┌ native", "│┌ SQLite"]
    assert "✓✗ order.fifo" in lines
    assert lines[-1] == "✗ sqlite order.fifo: x"


def test_what_is_run_again_takes_the_place_of_what_was():
    before = Column("Server 1", "3.11.1", {"a.b": "failed: x", "a.c": "passed"})
    assert merged(before, Column("Server 2", "3.11.2", {"a.b": "passed"})) == Column(
        "Server 2", "3.11.2", {"a.b": "passed", "a.c": "passed"}
    )
    assert merged(before, Column()) == before


def test_records_are_kept_in_the_order_of_the_table_without_what_is_gone(tmp_path):
    records = made_up(gone__promise="passed")
    mixed = dict(reversed(records.items()))
    save(tmp_path / "records.json", {**mixed, "gone": Column()})
    loaded = load(tmp_path / "records.json")
    assert list(loaded) == [setup.name for setup in SETUPS]
    assert list(loaded["sqlite"].results) == NAMES
    assert page(loaded) == page(records)


def test_set_ups_are_chosen_by_name_or_kind():
    assert [each.name for each in chosen(["redis"])] == ["redis-6.2", "redis-7.0", "redis-8.2", "redis-cluster"]
    assert [each.name for each in chosen(["kafka-one", "native"])] == ["native", "kafka-one"]
    assert chosen([]) == list(SETUPS)
    with pytest.raises(LookupError, match="no set-up is called kafk; there are native, "):
        chosen(["native", "kafk"])
