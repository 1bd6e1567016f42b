"""Row 15: the log ends too early, at any kind of place: it opens, and what is there are the first commits, whole."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.disks import Truncation, truncations
from tests.faults.plan import SEED, figures, tell, times
from tests.faults.sqlite.files import Maker, body, copy, envelope
from tests.faults.sqlite.survivors import Survivors, survivors
from tests.faults.sqlite_format import frames

COMMITS = 40


@dataclass
class Log:
    database: Path
    sizes: list[int]
    """Of the log, after each commit of two messages."""

    @property
    def wal(self) -> Path:
        return self.database.with_name("bus.db-wal")

    def whole(self, size: int) -> int:
        """Commits that a log of this size holds."""
        return sum(end <= size for end in self.sizes)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    folder = tmp_path_factory.mktemp("log")
    maker = Maker(folder / "bus.db")
    maker.store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    sizes = []
    for number in range(COMMITS):
        maker.publish(envelope(2 * number), envelope(2 * number + 1))
        sizes.append((folder / "bus.db-wal").stat().st_size)
    database = copy(folder / "bus.db", folder / "kept")
    maker.close()
    return Log(database, sizes)


def cuts(log: Log) -> list[Truncation]:
    size, rng = log.wal.stat().st_size, random.Random(SEED)
    anywhere = [Truncation("anywhere", rng.randrange(size), 0) for _ in range(times(30, 600))]
    edges = [Truncation("a frame's end", frame.end + by, 0) for frame in frames(log.wal) for by in (-1, 0, 1)]
    return [*truncations(log.wal), *anywhere, *(edges if times(0, 1) else edges[:30])]


def test_what_is_left_is_a_prefix_of_whole_commits(log: Log, tmp_path: Path) -> None:
    seen: set[int] = set()
    counts: Counter[str] = Counter()
    tried = cuts(log)
    for number, cut in enumerate(tried):
        database = copy(log.database, tmp_path / str(number))
        cut.apply(database.with_name("bus.db-wal"))
        found = survivors(database)
        whole = log.whole(cut.size)
        assert (found.error, found.damage, found.told) == (None, "", []), cut
        assert sorted(found.ids) == sorted(f"m-{n}" for n in range(2 * whole)), cut
        assert all(each.envelope.body == body(int(each.envelope.id[2:])) for each in found.deliveries)
        seen.add(whole)
        counts.update(judged(found, whole))
        shutil.rmtree(database.parent)
    note = f"commits left: {len(seen)} different counts from {min(seen)} to {max(seen)}"
    tell(15, "log truncated", figures("truncation", len(tried), **counts, note=note))
    assert len(seen) > COMMITS / 2


def judged(found: Survivors, whole: int) -> dict[str, int]:
    """Of the messages whose commits the log still holds."""
    there, wanted = set(found.ids), {f"m-{n}" for n in range(2 * whole)}
    return {
        "attempted": 2 * COMMITS,
        "acked": 2 * whole,
        "delivered": len(there),
        "lost": len(wanted - there),
        "duplicated": len(found.ids) - len(there),
        "phantom": len(there - wanted),
    }


def test_a_log_that_is_swapped_would_be_noticed(log: Log, tmp_path: Path) -> None:
    """The judge is not blind: an older database under a newer log loses what was between."""
    database = copy(log.database, tmp_path / "a")
    (tmp_path / "a/bus.db-wal").unlink()
    assert survivors(database).ids == []
