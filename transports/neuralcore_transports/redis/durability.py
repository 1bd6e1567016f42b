"""Whether the server can promise what ``durability=disk`` asks for."""

from __future__ import annotations

from neuralcore.messaging.errors import TransportError
from neuralcore_transports.redis.errors import RedisRefused
from neuralcore_transports.redis.servers import Servers

__all__ = ["WAITAOF_SINCE", "check_durability"]

WAITAOF_SINCE = (7, 2)


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
