"""The power cut, proved by what SQLite promises: it must tell ``synchronous`` FULL, NORMAL and OFF apart."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults import shims, sqlite_writer
from tests.faults.powercut import Mode, PowerCut
from tests.faults.processes import Moments
from tests.faults.sqlite_writer import Found

pytestmark = pytest.mark.skipif(not shims.available(), reason=str(shims.NoCompiler()))

SEED = 20260101
CUTS = 60


@dataclass
class Run:
    power: PowerCut
    printed: set[int]
    folder: Path

    def found(self, mode: Mode, count: int = CUTS) -> list[Found]:
        results = []
        for cut in self.power.cuts(count, SEED):
            target = self.folder / f"{mode}-{cut.position}"
            cut.image(target, mode, SEED)
            results.append(sqlite_writer.judge(target / "bus.db", map(int, cut.witnessed)))
            shutil.rmtree(target)
        return results


def run(folder: Path, synchronous: str, journal: str = "wal") -> Run:
    """Two writers of one database; the first is killed and replaced, twice, while the second goes on."""
    power, moments, printed = PowerCut(folder / "disk"), Moments(SEED), set()
    database = power.directory / "bus.db"

    def writer(first: int):
        return sqlite_writer.start(
            database, first=first, synchronous=synchronous, journal=journal, env=power.environment()
        )

    with writer(0) as steady:
        steady.expect("1")
        for first in (1_000_000, 2_000_000):
            with writer(first) as victim:
                victim.expect(str(first))
                victim.kill_after(moments.next(0.01, 0.1))
                printed |= numbers(victim.lines)
        steady.kill()
        printed |= numbers(steady.lines)
    return Run(power, printed, folder)


def numbers(lines: list[str]) -> set[int]:
    return {int(line) for line in lines if line != "ready"}


@pytest.fixture(scope="module", params=["full", "normal", "off"])
def synchronous(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def finished(synchronous: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(tmp_path_factory.mktemp(synchronous), synchronous)


def test_no_write_escaped_the_shim(finished: Run) -> None:
    assert finished.power.missed() == []


def test_what_was_printed_was_witnessed(finished: Run, tmp_path: Path) -> None:
    cut = finished.power.image(tmp_path / "now", "all")
    assert finished.printed <= set(map(int, cut.witnessed))
    assert len(finished.printed) > 20


def test_a_cut_that_loses_nothing_is_a_kill(finished: Run) -> None:
    assert not any(found.missing or found.damage for found in finished.found("all", 10))


@pytest.mark.parametrize("mode", ["none", "random"])
def test_a_cut_tells_the_settings_apart(finished: Run, synchronous: str, mode: Mode) -> None:
    found = finished.found(mode)
    losing, damaged = [f for f in found if f.missing], [f.damage for f in found if f.damage]
    print(f"{synchronous} {mode}: {len(found)} cuts, {len(losing)} losing, at most "
          f"{max(len(f.missing) for f in found)} rows, {len(damaged)} damaged")  # fmt: skip
    match synchronous:
        case "full":
            assert (losing, damaged) == ([], [])
            assert sum(f.rows > 0 for f in found) >= 50
        case "normal":
            assert losing
            assert damaged == []
        case "off":
            assert len(losing) + len(damaged) > CUTS / 2


def test_a_disk_that_lies_loses_rows_at_full(tmp_path: Path) -> None:
    """The negative control: what makes FULL safe is the sync, and nothing in the tool."""
    power = PowerCut(tmp_path / "disk")
    power.lie()
    with sqlite_writer.start(power.directory / "bus.db", env=power.environment()) as writer:
        writer.expect("20")
    cut = power.image(tmp_path / "after", "none")
    assert len(sqlite_writer.judge(tmp_path / "after/bus.db", map(int, cut.witnessed)).missing) > 20


@pytest.mark.parametrize(("setting", "loses"), [("full", True), ("extra", False)])
def test_an_unlinked_journal_comes_back_unless_its_folder_was_synced(tmp_path: Path, setting: str, loses: bool) -> None:
    """SQLite's own words on EXTRA: it syncs the folder after a rollback journal is unlinked to commit."""
    found = run(tmp_path, setting, "delete").found("none", 30)
    assert not any(f.damage for f in found)
    assert any(f.missing for f in found) is loses


def test_the_same_seed_makes_the_same_disk(finished: Run, tmp_path: Path) -> None:
    def contents(name: str, seed: int) -> dict[str, bytes]:
        finished.power.image(tmp_path / name, "random", seed)
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}

    assert contents("a", 3) == contents("b", 3)
