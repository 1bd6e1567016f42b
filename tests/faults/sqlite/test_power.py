"""Row 4: the power goes. FULL loses nothing; NORMAL may lose the last ones and never the file; OFF promises neither."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.aftermath import Found, judged, summary
from tests.faults.plan import SEED, long_only, needs_compiler, some, tell, times
from tests.faults.powercut import Cut, Mode, PowerCut
from tests.faults.sqlite.stage import SqliteStage
from tests.faults.sqlite.survivors import survivors

pytestmark = needs_compiler

LOG_DUE = 150_000
MODES: tuple[Mode, ...] = ("none", "all", "random")


@dataclass
class Run:
    folder: Path
    power: PowerCut

    def found(self, mode: Mode, count: int, seed: int = SEED) -> list[Found]:
        results = []
        for cut in self.power.cuts(count, seed):
            target = self.folder / f"{mode}-{cut.position}"
            cut.image(target, mode, seed)
            results.append(judge(target / "bus.db", cut))
            shutil.rmtree(target)
        return results


def judge(database: Path, cut: Cut) -> Found:
    after = survivors(database)
    return judged(cut, after.ids, after.damage or str(after.error or ""))


def run(folder: Path, durability: str, *, strict: bool = False, lie: bool = False) -> Run:
    """Two producers and a consumer, one producer killed and replaced on the way, and short logs."""
    power = PowerCut(folder / "disk", strict=strict)
    power.lie(lie)
    query = f"lease=1&durability={durability}"
    with SqliteStage(folder, query=query, env=power.environment(), database=power.directory / "bus.db") as stage:
        stage.consumer(work=0.002, log_due=LOG_DUE)
        first = stage.producer(size=500, pause=0.002, log_due=LOG_DUE)
        second = stage.producer(size=3000, pause=0.004, at_once=2, log_due=LOG_DUE)
        for _ in range(times(1, 5)):
            first.until(lambda lines: len(lines) > times(80, 200))
            stage.strike(first, stage.moments.next(0.0, 0.05), "kill -9 producer")
            first = stage.producer(size=500, pause=0.002, log_due=LOG_DUE)
        first.until(lambda lines: len(lines) > 40)
        second.until(lambda lines: len(lines) > 20)
    return Run(folder, power)


@pytest.fixture(scope="module", params=some(2, ["full", "normal", "off"]))
def durability(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def finished(durability: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(tmp_path_factory.mktemp(durability), durability)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_left_after_a_cut(finished: Run, durability: str, mode: Mode) -> None:
    found = finished.found(mode, times(20, 150))
    tell(4, f"power cut, durability={durability}, unsynced writes kept: {mode}", summary(found))
    assert sum(each.phantom for each in found) == 0
    assert max(each.acked for each in found) > 50
    if durability == "full" or mode == "all":
        assert [each for each in found if each.lost or each.damage] == []
    elif durability == "normal":
        assert [each.damage for each in found if each.damage] == []
        assert any(each.lost for each in found), "a check that finds nothing here would find nothing at FULL"
    elif mode == "none":
        assert any(each.lost or each.damage for each in found)


def test_no_write_escaped(finished: Run) -> None:
    assert finished.power.missed() == []


@long_only
def test_full_survives_where_new_names_need_their_folder_synced(tmp_path: Path) -> None:
    """As POSIX has it, and ext4 has not."""
    found = run(tmp_path, "full", strict=True).found("none", times(20, 100))
    tell(4, "power cut, durability=full, strict names, unsynced writes kept: none", summary(found))
    assert [each for each in found if each.lost or each.damage] == []


def test_a_disk_that_lies_loses_messages_at_full(tmp_path: Path) -> None:
    """What saves them is the sync, and nothing in the tool."""
    assert any(each.lost for each in run(tmp_path, "full", lie=True).found("none", 10))
