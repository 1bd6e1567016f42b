from __future__ import annotations

from tests.servers.fixtures import redis_server

__all__ = ["redis_server"]
