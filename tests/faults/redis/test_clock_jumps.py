"""Row 13: the clients' wall clocks jump by two hours while everything runs; retries, delays and leases do not care."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.clocks import Clock
from tests.faults.jumps import WORK, judge, jump_about
from tests.faults.plan import needs_compiler, some
from tests.faults.redis.stage import RedisStage
from tests.servers.redis import RedisServer

pytestmark = needs_compiler


@pytest.mark.parametrize("direction", some(1, [-1, 1]))
def test_nothing_is_early_late_or_lost(tmp_path: Path, start_redis: Callable[..., RedisServer], direction: int) -> None:
    """The server's clock stays."""
    clock, server = Clock(tmp_path), start_redis()
    with RedisStage(tmp_path, server, env=clock.environment()) as stage:
        consumers = [stage.consumer(**WORK) for _ in range(2)]
        lost = jump_about(stage, clock, consumers, direction)
        judge(stage, "clients' wall clocks jump", direction, lost)
        assert stage.debris() == []
