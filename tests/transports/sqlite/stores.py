"""Files with something of everything in them, and what comes out of them through a real bus."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from neuralcore import Message, MessageBus
from neuralcore.messaging.transport import Demand, Envelope, Interest, Outcome, Settlement
from neuralcore_transports.sqlite.clock import StoreClock
from neuralcore_transports.sqlite.opening import connect, prepare
from neuralcore_transports.sqlite.options import SqliteOptions
from neuralcore_transports.sqlite.store.fetch import Reader
from neuralcore_transports.sqlite.store.moment import Limits
from neuralcore_transports.sqlite.store.store import Store
from neuralcore_transports.sqlite.store.transaction import Book

GROUPS = ("mail", "audit")
CHANNELS = ("orders.new", "orders.paid")
COUNT = 60
"""Messages in each channel."""


class _Wall:
    """The part of a bus's clock that a store asks."""

    def time_ns(self) -> int:
        return 1_800_000_000_000_000_000


def make(path: Path, *, count: int = COUNT, size: int = 300) -> dict[str, set[str]]:
    """The ids of the messages that each group is owed.

    Of the first channel ``mail`` has settled eight and failed two, and ``audit`` has ten leased by somebody who is dead
    now; some are delayed, some have keys.
    """
    clock = StoreClock(_Wall())  # type: ignore[arg-type]
    prepare(SqliteOptions(path), clock)
    with closing(connect(path)) as connection:
        store = Store(Book(connection), Limits())
        owner = store.connect("gone", "another boot", clock.now())
        readers = {}
        for group in GROUPS:
            readers[group] = Reader(owner, group)
            interests = [Interest(id=1, pattern="orders.*"), Interest(id=2, pattern="orders.new")]
            store.update(readers[group], interests, clock.now())
        envelopes = [_envelope(channel, number, size) for number in range(count) for channel in CHANNELS]
        store.commit(envelopes, [], clock.now())
        taken, *_ = store.fetch(readers["mail"], {2: Demand(10)}, clock.now())
        outcomes = [Outcome.NACK] * 2 + [Outcome.ACK] * 8
        store.commit([], [Settlement(each, how) for each, how in zip(taken, outcomes, strict=True)], clock.now())
        store.fetch(readers["audit"], {2: Demand(10)}, clock.now())
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ids = {envelope.id for envelope in envelopes}
    return {"audit": ids, "mail": ids - {delivery.envelope.id for delivery in taken[2:]}}


def _envelope(channel: str, number: int, size: int) -> Envelope:
    return Envelope(
        id=f"{channel}-{number}",
        channel=channel,
        body=b'"%s"' % (b"x" * (number * 371 % size)),
        priority=(50, 25)[number % 7 == 6],
        key="ada" if number % 5 == 1 else None,
        delay_ns=1 if number % 9 == 4 else 0,
        headers={"n": str(number)},
    )


def damage(path: Path, *statements: str) -> int:
    """By SQL; how many rows the last one changed."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        changed = 0
        for statement in statements:
            changed = connection.execute(statement).rowcount
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return changed


def ask(path: Path, query: str) -> list[tuple]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


async def drained(path: Path, group: str, expected: Iterable[str] = (), *, silence: float = 0.3) -> list[str]:
    """The ids of everything that a group gets, in order, until nothing more comes; of ``expected`` it is patient."""
    got: list[str] = []
    news = asyncio.Event()

    async def handle(message: Message) -> None:
        got.append(message.id)
        news.set()

    async with MessageBus(f"sqlite://{path}") as bus:
        await bus.subscribe("orders.*", handle, group=group).ready()
        while True:
            news.clear()
            patience = silence if set(expected) <= set(got) else 10.0
            try:
                await asyncio.wait_for(news.wait(), patience)
            except (TimeoutError, asyncio.TimeoutError):
                return got
