"""The load: takes orders and asks for prices, until SIGTERM; then it sees to it that what it began is acknowledged.

``python -m examples.cluster.front HOST URL EVIDENCE``
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import os
import random
import signal
import sys
from pathlib import Path

from examples.cluster.evidence import Log
from examples.cluster.shop import ORDERS, PRICES, Order
from neuralcore import MessageBus, PublishUnknown, RequestFailed, RequestTimeout, Unavailable

__all__ = ["Front"]

AT_ONCE = 3
PAUSE = 0.2
"""Seconds, on average, between two orders (and two questions) of each of those."""
PATIENCE = 10.0
"""Seconds to wait for an answer."""


class Front:
    def __init__(self, url: str, host: str, log: Log) -> None:
        self.host = host
        self.log = log
        self.bus = MessageBus(url, name=f"front on {host}")
        self._numbers = itertools.count()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stopping.set)
        async with self.bus:
            self.log.write("started", "front")
            await asyncio.gather(self._ask(), *(self._order() for _ in range(AT_ONCE)))
        self.log.write("closed", "front")

    async def _order(self) -> None:
        while not self._stopping.is_set():
            await self._place(self._id(), Order("tea", next(self._numbers)))
            await self._pause()

    async def _place(self, id: str, order: Order) -> None:
        """Again and again with the same id, which the store takes for the same message."""
        while True:
            self.log.write("attempted", id, payload=dataclasses.asdict(order))
            try:
                await self.bus.publish(ORDERS, order, message_id=id)
            except (PublishUnknown, Unavailable):
                await asyncio.sleep(0.2)
            else:
                self.log.write("acked", id)
                return

    async def _ask(self) -> None:
        while not self._stopping.is_set():
            id = self._id()
            self.log.write("asked", id)
            try:
                quote = await self.bus.request(PRICES, random.choice(["tea", "cake"]), timeout=PATIENCE)
            except (PublishUnknown, RequestFailed, RequestTimeout, Unavailable) as error:
                self.log.write("unanswered", id, payload=repr(error))
            else:
                self.log.write("answered", id, payload=quote)
            await self._pause()

    def _id(self) -> str:
        return f"{self.host}-{os.getpid()}-{next(self._numbers)}"

    async def _pause(self) -> None:
        await asyncio.sleep(PAUSE * random.uniform(0.5, 1.5))


async def main(host: str, url: str, evidence: str) -> None:
    await Front(url, host, Log(Path(evidence), host)).run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(main(*sys.argv[1:]))
