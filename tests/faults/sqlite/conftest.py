from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.sqlite.stage import SqliteStage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[SqliteStage]:
    with SqliteStage(tmp_path) as stage:
        yield stage
