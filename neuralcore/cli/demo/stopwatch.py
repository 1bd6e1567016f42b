"""A middleware that counts and times every message of the demo, per channel."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from neuralcore._core import Message
from neuralcore.messaging.middleware import BatchHandle, Handle, Middleware, Publication, Publish

__all__ = ["Lap", "Stopwatch", "quantile"]

SENT = "demo-sent"


@dataclass
class Lap:
    """What passed one channel. Times are seconds."""

    handled: int = 0
    failed: int = 0
    waited: list[float] = field(default_factory=list)
    """From publish to the handler; first attempts only."""
    worked: list[float] = field(default_factory=list)
    """The handler's own time, every attempt."""


class Stopwatch(Middleware):
    def __init__(self) -> None:
        self.laps: dict[str, Lap] = defaultdict(Lap)

    async def publish(self, publication: Publication, proceed: Publish) -> str | None:
        sent = repr(asyncio.get_running_loop().time())
        return await proceed(publication.with_headers(**{SENT: sent}))

    async def handle(self, message: Message, proceed: Handle) -> Any:
        now = asyncio.get_running_loop().time
        lap, began = self.laps[message.channel], now()
        if message.attempt == 1 and SENT in message.headers:
            lap.waited.append(began - float(message.headers[SENT]))
        try:
            result = await proceed(message)
        except Exception:
            lap.failed += 1
            raise
        finally:
            lap.worked.append(now() - began)
        lap.handled += 1
        return result

    async def handle_batch(self, messages: list[Message], proceed: BatchHandle) -> Any:
        """Batches are the auditor's, which watches the same messages again: not counted twice."""
        return await proceed(messages)


def quantile(values: list[float], share: float) -> float | None:
    """None without values."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else None
