"""Whether the server keeps what it is given, as long as ``durability=`` asks for."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Final

from redis.exceptions import RedisError

from neuralcore.messaging.errors import TransportError
from neuralcore_transports.redis.errors import RedisRefused
from neuralcore_transports.redis.servers import Servers

__all__ = ["WAITAOF_SINCE", "check_durability", "check_eviction"]

log = logging.getLogger("neuralcore.redis")

WAITAOF_SINCE = (7, 2)
_LIMIT: Final = re.compile(rb"^maxmemory:(\d+)\r?$", re.MULTILINE)
_POLICY: Final = re.compile(rb"^maxmemory_policy:([a-z-]+)\r?$", re.MULTILINE)


async def check_eviction(servers: Servers) -> None:
    """Warns of servers that remove what they have no room for: one may be shared with a cache, on purpose."""
    try:
        answers = await servers.each("INFO", "memory")
    except (TransportError, RedisError, OSError, asyncio.TimeoutError) as error:
        log.debug("whether Redis at %s removes messages is not known: %s", servers.options.shown, error)
        return
    found = set()
    for info in answers:
        limit, policy = _LIMIT.search(info), _POLICY.search(info)
        if limit is not None and int(limit[1]) and policy is not None and policy[1] != b"noeviction":
            found.add((policy[1].decode(), int(limit[1]) // 1_000_000))
    for name, megabytes in sorted(found):
        log.warning(
            "Redis at %s has maxmemory-policy %s: when it has %d MB it removes keys, with messages, and tells nobody; "
            "set it to noeviction",
            servers.options.shown,
            name,
            megabytes,
        )


async def check_durability(servers: Servers) -> None:
    """Raises TransportError, with what to do."""
    if servers.options.durability != "disk":
        return
    for info in await servers.each("INFO", "persistence"):
        if b"aof_enabled:1" not in info:
            raise TransportError(
                f"?durability=disk needs an append-only file, and Redis at {servers.options.shown} has none: "
                "set appendonly yes, or leave durability to the server (?durability=server)"
            )
    if servers.version() >= WAITAOF_SINCE:
        return
    try:
        answers = await servers.each("CONFIG", "GET", "appendfsync")
    except RedisRefused as error:
        raise TransportError(
            f"?durability=disk needs appendfsync always on Redis before 7.2, and this user may not see whether "
            f"{servers.options.shown} has it ({error.reason}): allow +config|get, or use ?durability=server"
        ) from error
    if any(answer.get(b"appendfsync") != b"always" for answer in answers):
        raise TransportError(
            f"?durability=disk needs appendfsync always on Redis before 7.2, and {servers.options.shown} has another: "
            "set it, use Redis 7.2 (WAITAOF), or leave durability to the server (?durability=server)"
        )
