"""A client without a bus, on Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from neuralcore_transports.redis import RedisTransport
from tests.faults.clients import Runtime, message, reader, settle, take
from tests.servers.redis import RedisServer

__all__ = ["Runtime", "message", "opened", "reader", "settle", "take"]


@asynccontextmanager
async def opened(
    server: RedisServer, query: str = "lease=1&timeout=2&patience=4", *, port: int | None = None
) -> AsyncIterator[tuple[RedisTransport, Runtime]]:
    made, runtime = RedisTransport.from_url(f"{server.url(port=port)}/0?{query}"), Runtime()
    await made.open(runtime)
    try:
        yield made, runtime
    finally:
        await made.close()
