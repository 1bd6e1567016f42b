"""A worker: packs orders and quotes prices, beside any number of others, until SIGTERM; then it drains and ends.

``python -m examples.cluster.worker HOST URL EVIDENCE``
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import sys
from pathlib import Path

from examples.cluster.evidence import Log
from examples.cluster.shop import ORDERS, PACKING, PRICES, PRICING, Order, Quote
from neuralcore import Message, MessageBus

__all__ = ["AT_ONCE", "WORK", "app"]

AT_ONCE = 4
"""Orders that one process packs at the same time."""
WORK = 0.2
"""Seconds that packing takes."""
DRAIN = 10.0
"""Seconds that handlers have after SIGTERM. Whatever stops the process must be as patient."""


def app(url: str, host: str, log: Log) -> MessageBus:
    bus = MessageBus(url, name=f"worker on {host}")

    @bus.subscribe(ORDERS, group=PACKING, concurrency=AT_ONCE)
    async def pack(order: Order, message: Message) -> None:
        payload = dataclasses.asdict(order)
        log.write("delivered", message.id, group=PACKING, attempt=message.attempt, payload=payload)
        await asyncio.sleep(WORK)
        log.write("settled", message.id, group=PACKING, attempt=message.attempt, late=message.lease_lost)

    @bus.subscribe(PRICES, group=PRICING, concurrency=AT_ONCE)
    async def price(item: str) -> Quote:
        return Quote({"tea": 2.5, "cake": 4.0}[item], host)

    return bus


def main(host: str, url: str, evidence: str) -> None:
    log = Log(Path(evidence), host)
    log.write("started", "worker")
    report = app(url, host, log).run(timeout=DRAIN)
    log.write("closed", "worker", payload=dataclasses.asdict(report))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    main(*sys.argv[1:])
