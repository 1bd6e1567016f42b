"""The transport of a worker on Redis."""

from __future__ import annotations

from neuralcore_transports.redis import RedisTransport
from neuralcore_transports.redis.keeper import Keeper

__all__ = ["make"]


def make(url: str, *, heart: bool = True) -> RedisTransport:
    if not heart:
        Keeper._beat = lambda self: None  # type: ignore[method-assign]
    return RedisTransport.from_url(url)
