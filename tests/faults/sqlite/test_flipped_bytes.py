"""Row 14: one bit flips somewhere in the file. Never is a wrong message delivered."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from neuralcore.messaging.transport import Outcome
from tests.faults.disks import Flip, flip
from tests.faults.plan import SEED, figures, tell, times
from tests.faults.sqlite.files import Maker, body, copy, envelope
from tests.faults.sqlite.survivors import Survivors, survivors
from tests.faults.sqlite_format import DATABASE_REGIONS, WAL_REGIONS

COUNT = 240
TAKEN = 40
UNTOLD = ("index leaf cell", "SILENTLY MISSING")
"""A known limit: what positions have taken (nc_cursor, nc_entry) has no checksum. The message's row is still there."""
NEVER = ("WRONG", "SILENTLY MISSING", "refused: Unavailable")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A database with every kind of page and nothing in its log, and one with everything in its log."""
    folder = tmp_path_factory.mktemp("files")
    return {"file": make(folder / "file", checkpoint=True), "log": make(folder / "log", checkpoint=False)}


def make(folder: Path, *, checkpoint: bool) -> Path:
    folder.mkdir()
    maker = Maker(folder / "bus.db")
    maker.store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    if checkpoint:
        for number in range(COUNT, COUNT + 200):
            maker.publish(envelope(number))
    for number in range(COUNT):
        maker.publish(envelope(number))
    if checkpoint:
        maker.settle(maker.take(200))  # what was deleted leaves free pages
        maker.settle(maker.take(TAKEN)[:10], Outcome.RELEASE)
        maker.close()
    return copy(folder / "bus.db", folder / "kept")


def expected() -> set[str]:
    return {f"m-{n}" for n in range(COUNT)}


def verdict(found: Survivors) -> str:
    """What became of one damaged file."""
    ids = set(found.ids)
    wrong = [each for each in found.deliveries if each.envelope.body != body(int(each.envelope.id[2:]))]
    if wrong or ids - expected():
        return "WRONG"
    if found.error is not None:
        return f"refused: {type(found.error).__name__}"
    if found.told:
        return "quarantined"
    if ids != expected():
        return "missing, SQLite's check tells" if found.damage else _what_is_missing(ids, found.broken)
    return "harmless" if len(found.ids) == len(ids) else "delivered twice"


def _what_is_missing(ids: set[str], broken: int) -> str:
    if ids != {f"m-{n}" for n in range(len(ids))}:
        return "SILENTLY MISSING"
    if broken:
        return "the log breaks off, and it is told"
    return "the last commit is torn" if len(ids) == COUNT - 1 else "SILENTLY MISSING"


def judge(database: Path, region: str, seed: int, folder: Path) -> tuple[Survivors, Flip]:
    damaged = copy(database, folder)
    where = damaged.with_name("bus.db-wal") if region in WAL_REGIONS else damaged
    done = flip(where, region, seed)
    found = survivors(damaged)
    shutil.rmtree(folder)
    return found, done


@pytest.mark.parametrize("region", DATABASE_REGIONS)
def test_a_flipped_bit_in_the_file(files: dict[str, Path], region: str, tmp_path: Path) -> None:
    count(files["file"], region, tmp_path)


@pytest.mark.parametrize("region", WAL_REGIONS)
def test_a_flipped_bit_in_the_log(files: dict[str, Path], region: str, tmp_path: Path) -> None:
    """A frame that does not fit its checksum ends the log: what was committed after it is gone, and that is told."""
    count(files["log"], region, tmp_path)


def count(database: Path, region: str, folder: Path) -> None:
    assert verdict(survivors(copy(database, folder / "sound"))) == "harmless"
    verdicts: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for number in range(times(10, 200)):
        left, done = judge(database, region, SEED * 1000 + number, folder / str(number))
        found = verdict(left)
        assert found not in NEVER or (region, found) == UNTOLD, done
        verdicts[found] += 1
        counts.update(counted(left))
    shown = ", ".join(f"{name} ×{many}" for name, many in sorted(verdicts.items()))
    what = f"bit flipped: {region}{' of the log' if region in WAL_REGIONS else ''}"
    tell(14, what, figures("flip", verdicts.total(), **counts, note=shown))


def counted(found: Survivors) -> dict[str, int]:
    """Lost is what is missing when nothing said that anything is wrong."""
    ids, noticed = set(found.ids), found.error is not None or bool(found.told or found.damage)
    wrong = sum(each.envelope.body != body(int(each.envelope.id[2:])) for each in found.deliveries)
    return {
        "attempted": COUNT,
        "acked": COUNT,
        "delivered": len(ids),
        "lost": 0 if noticed else len(expected() - ids),
        "duplicated": len(found.ids) - len(ids),
        "phantom": wrong + len(ids - expected()),
    }


def test_a_wrong_message_would_be_noticed(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the checksums, flips in cells get through."""
    import neuralcore_transports.sqlite.store.rows as rows

    right: Callable[..., int] = rows.crc32
    monkeypatch.setattr(rows, "crc32", lambda *_: _Anything())
    found = {verdict(judge(files["file"], "overflow page", seed, tmp_path / str(seed))[0]) for seed in range(20)}
    monkeypatch.setattr(rows, "crc32", right)
    assert "WRONG" in found


class _Anything(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__
