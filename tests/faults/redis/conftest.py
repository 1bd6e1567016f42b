from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.redis.stage import RedisStage
from tests.servers.fixtures import proxy_to, start_redis
from tests.servers.redis import RedisServer

__all__ = ["proxy_to", "start_redis"]


@pytest.fixture
def stage(tmp_path: Path, start_redis: Callable[..., RedisServer]) -> Iterator[RedisStage]:
    """On a server of its own that syncs before it answers."""
    with RedisStage(tmp_path, start_redis(appendfsync="always")) as stage:
        yield stage
