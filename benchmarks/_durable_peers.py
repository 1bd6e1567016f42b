"""Queues in SQLite files from PyPI, each opened for equal durability and used as its documentation says is fastest.

That every commit syncs was counted, for each of them, with

    strace -f -c -e trace=fsync,fdatasync python -m benchmarks._durable_peers NAME

which puts 200 messages, then takes and settles them one batch after the other. What was counted stands with each peer:
never fewer syncs than commits, the few more being the opening, checkpoints and cleaning up.

Publishers on several threads share one object, which is faster with every peer than a connection for each (threads
queue at a lock instead of sleeping in SQLite's busy handler). Consumers that find nothing try again after a nap of
half a millisecond, far shorter than what the libraries themselves do, but with which they get most done.
"""

from __future__ import annotations

import importlib.util
import json
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from benchmarks._durable import Payload, payloads

__all__ = ["HAS_ASYNC", "NAP", "PEERS", "SKIPPED", "TAKEN_AT_ONCE", "AsyncPersistQueue", "Peer", "Raw"]

NAP = 0.0005
TAKEN_AT_ONCE = 64
"""At most, by peers that can."""
PATIENCE = 60.0
"""Seconds for which peers wait for another connection's lock."""

Taken = Sequence[tuple[Payload, Any]]
"""Messages, and what each is settled with."""


def _sure(pragma: Callable[[str], Any]) -> None:
    """Raise unless the connection that writes has a write-ahead log and syncs it."""
    if (pragma("journal_mode"), pragma("synchronous")) != ("wal", 2):
        raise RuntimeError("this peer does not sync its commits, so there is nothing to compare")


class Peer:
    """A peer's file, open. ``put`` may be called from several threads at once, and the others from one more."""

    name: ClassVar[str]
    module: ClassVar[str]
    requirement: ClassVar[str]
    acknowledges: ClassVar[bool] = True
    """Otherwise a message is gone once taken, and a crash of its handler loses it."""
    shared: ClassVar[bool] = True
    """Whether several processes may take from one file."""
    many: ClassVar[bool] = False
    """Whether it takes and settles several messages in one commit."""

    def __init__(self, folder: Path) -> None:
        raise NotImplementedError

    def put(self, payload: Payload) -> None:
        raise NotImplementedError

    def put_many(self, payloads: Sequence[Payload]) -> None:
        """In one commit; where the peer has no such call, one by one."""
        for payload in payloads:
            self.put(payload)

    def take(self, most: int) -> Taken:
        """What is there, without waiting; peers without batches take one."""
        raise NotImplementedError

    def settle(self, taken: Taken) -> None:
        """Nothing to do for a peer that does not acknowledge."""

    def fill(self, payloads: Sequence[Payload]) -> None:
        """As ``put_many``, but it need not sync: nothing is timed."""
        self.put_many(payloads)

    def close(self) -> None:
        """The file may go."""

    @classmethod
    def batches(cls) -> bool:
        return cls.put_many is not Peer.put_many


def _loose(peer: Peer, connection: Any, payloads: Sequence[Payload]) -> None:
    """One by one, unsynced: peers without batches would take minutes to fill."""
    connection.execute("PRAGMA synchronous=OFF")
    for payload in payloads:
        peer.put(payload)
    connection.execute("PRAGMA synchronous=FULL")


class Raw:
    """No queue at all: ``executemany`` into a plain table, which is what SQLite itself can do."""

    name = "sqlite3.executemany"

    def __init__(self, folder: Path) -> None:
        self._connection = sqlite3.connect(folder / "raw.db", isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, payload BLOB NOT NULL)")
        _sure(lambda name: self._connection.execute(f"PRAGMA {name}").fetchone()[0])

    def put_many(self, payloads: Sequence[Payload]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(
            "INSERT INTO messages (payload) VALUES (?)", [(json.dumps(payload).encode(),) for payload in payloads]
        )
        self._connection.execute("COMMIT")

    def all(self) -> list[Payload]:
        return [json.loads(row[0]) for row in self._connection.execute("SELECT payload FROM messages ORDER BY id")]

    def close(self) -> None:
        self._connection.close()


class Huey(Peer):
    """The storage of huey's SqliteHuey with ``fsync=True`` (synchronous=FULL); the write-ahead log is its default.

    Counted: 413 fdatasync for 200 puts and 200 takes.
    """

    name, module, requirement = "huey", "huey", "huey>=3.5"
    acknowledges = False

    def __init__(self, folder: Path) -> None:
        from huey.storage import SqliteStorage  # type: ignore[import-not-found, unused-ignore]

        self._storage = SqliteStorage("bench", str(folder / "huey.db"), fsync=True, timeout=PATIENCE)
        _sure(lambda name: self._storage.conn.execute(f"PRAGMA {name}").fetchone()[0])

    def put(self, payload: Payload) -> None:
        self._storage.enqueue(json.dumps(payload).encode())

    def fill(self, payloads: Sequence[Payload]) -> None:
        _loose(self, self._storage.conn, payloads)

    def take(self, most: int) -> Taken:
        data = self._storage.dequeue()
        return [] if data is None else [(json.loads(data), None)]

    def close(self) -> None:
        self._storage.close()


class PersistQueue(Peer):
    """persist-queue's SQLiteAckQueue: its write-ahead log and SQLite's default, synchronous=FULL.

    Acknowledged rows stay, and every ``get`` walks over them, so they are cleared now and then, as it recommends.
    A put, a get and an ack are a commit each. Counted: 612 fdatasync for 200 of each.
    """

    name, module, requirement = "persist-queue", "persistqueue", "persist-queue[async]>=1.1"
    shared = False
    CLEAR = 100

    def __init__(self, folder: Path) -> None:
        from persistqueue import SQLiteAckQueue  # type: ignore[import-not-found, unused-ignore]

        self._queue = SQLiteAckQueue(str(folder / "persist"), multithreading=True, timeout=PATIENCE)
        self._acked = 0
        _sure(lambda name: self._queue._putter.execute(f"PRAGMA {name}").fetchone()[0])

    def put(self, payload: Payload) -> None:
        self._queue.put(payload)

    def fill(self, payloads: Sequence[Payload]) -> None:
        _loose(self, self._queue._putter, payloads)

    def take(self, most: int) -> Taken:
        from persistqueue import Empty

        try:
            got = self._queue.get(block=False, raw=True)
        except Empty:
            return []
        return [(got["data"], got["pqid"])]

    def settle(self, taken: Taken) -> None:
        for _, key in taken:
            self._queue.ack(id=key)
        self._acked += len(taken)
        if self._acked >= self.CLEAR:
            self._queue.clear_acked_data(max_delete=self._acked, keep_latest=0)
            self._acked = 0

    def close(self) -> None:
        self._queue.close()


class LiteQueue(Peer):
    """litequeue, which sets synchronous=NORMAL when it is made; FULL is set on its connection afterwards.

    Threads may not share its connection by themselves: publishers take turns at a lock, and the consumer has a
    connection of its own. Messages that are done are pruned now and then. Counted: 618 fdatasync for 200 puts, pops
    and dones. Releases after 0.9 need Python 3.12.
    """

    name, module, requirement = "litequeue", "litequeue", "litequeue>=0.9"
    PRUNE = 100

    def __init__(self, folder: Path) -> None:
        self._publisher, self._consumer = self._opened(folder), self._opened(folder)
        self._lock = threading.Lock()
        self._done = 0

    def _opened(self, folder: Path) -> Any:
        import litequeue  # type: ignore[import-not-found, unused-ignore]

        queue = litequeue.LiteQueue(str(folder / "lite.db"), timeout=PATIENCE)
        queue.conn.execute("PRAGMA synchronous=FULL")
        _sure(lambda name: queue.conn.execute(f"PRAGMA {name}").fetchone()[0])
        return queue

    def put(self, payload: Payload) -> None:
        with self._lock:
            self._publisher.put(json.dumps(payload))

    def fill(self, payloads: Sequence[Payload]) -> None:
        _loose(self, self._publisher.conn, payloads)

    def take(self, most: int) -> Taken:
        message = self._consumer.pop()
        return [] if message is None else [(json.loads(message.data), message.message_id)]

    def settle(self, taken: Taken) -> None:
        for _, key in taken:
            self._consumer.done(key)
        self._done += len(taken)
        if self._done >= self.PRUNE:
            self._consumer.prune()
            self._done = 0

    def close(self) -> None:
        self._publisher.close()
        self._consumer.close()


class LocalQueue(Peer):
    """localqueue, whose engine is Rust, with its ``DurabilityMode.DURABLE`` (synchronous=FULL, as its diagnostics say).

    Counted: 626 fsync for 200 puts, gets and acks.
    """

    name, module, requirement = "localqueue", "localqueue", "localqueue>=1.4; python_version >= '3.11'"

    def __init__(self, folder: Path) -> None:
        from localqueue import DurabilityMode, Empty, SimpleQueue  # type: ignore[import-not-found, unused-ignore]

        self._empty = Empty
        self._publisher, self._consumer = (
            SimpleQueue(str(folder / "local"), durability=DurabilityMode.DURABLE) for _ in range(2)
        )
        diagnosed = self._publisher.diagnostics()
        _sure(lambda name: getattr(diagnosed, name))

    def put(self, payload: Payload) -> None:
        self._publisher.put(payload)

    def put_many(self, payloads: Sequence[Payload]) -> None:
        self._publisher.put_many(list(payloads))

    def take(self, most: int) -> Taken:
        with suppress(self._empty):
            job = self._consumer.get(timeout=0)
            return [(job.data, job)]
        return []

    def settle(self, taken: Taken) -> None:
        for _, job in taken:
            self._consumer.ack(job)

    def close(self) -> None:
        self._publisher.close()
        self._consumer.close()


class Honker(Peer):
    """honker, whose engine is Rust too; claims and acknowledges in batches.

    It sets synchronous=NORMAL and has no option. Its writer is one connection, so that the pragma is set there once,
    between a COMMIT and a BEGIN of ours inside its own transaction. Counted: 216 fdatasync for 200 puts and
    for claiming and acknowledging 4 batches.
    """

    name, module, requirement = "honker", "honker", "honker>=0.2.4; python_version >= '3.11'"
    many = True

    def __init__(self, folder: Path) -> None:
        import honker  # type: ignore[import-not-found, unused-ignore]

        self._database = honker.open(str(folder / "honker.db"))
        self._queue = self._database.queue("bench", visibility_timeout_s=3600)
        self._worker = f"worker-{id(self)}"
        with self._database.transaction() as transaction:
            for statement in ("COMMIT", "PRAGMA synchronous=FULL", "BEGIN IMMEDIATE"):
                transaction.execute(statement)
        with self._database.transaction() as transaction:
            _sure(lambda name: transaction.query(f"PRAGMA {name}")[0][name])

    def put(self, payload: Payload) -> None:
        self._queue.enqueue(payload)

    def put_many(self, payloads: Sequence[Payload]) -> None:
        with self._database.transaction() as transaction:
            for payload in payloads:
                self._queue.enqueue(payload, tx=transaction)

    def take(self, most: int) -> Taken:
        return [(job.payload, job.id) for job in self._queue.claim_batch(self._worker, most)]

    def settle(self, taken: Taken) -> None:
        self._queue.ack_batch([key for _, key in taken], self._worker)

    def claim(self) -> Any:
        """An asynchronous iterator over jobs, which it wakes itself."""
        return self._queue.claim(self._worker)

    def close(self) -> None:
        self._database.close()


class SimpleBroker(Peer):
    """simplebroker: write-ahead log, and synchronous=FULL by default.

    Acknowledged as its documentation advises for at-least-once: a batch moves to a queue of what is in hand, and is
    deleted there. Counted: 222 fdatasync for 200 writes and 4 batches.
    """

    name, module, requirement = "simplebroker", "simplebroker", "simplebroker>=8.7; python_version >= '3.11'"
    many = True

    def __init__(self, folder: Path) -> None:
        from simplebroker import Queue  # type: ignore[import-not-found, unused-ignore]

        self._queue, self._held = (
            Queue(name, db_path=str(folder / "broker.db"), persistent=True) for name in ("bench", "held")
        )
        self._lock = threading.Lock()

    def put(self, payload: Payload) -> None:
        with self._lock:
            self._queue.write(json.dumps(payload))

    def take(self, most: int) -> Taken:
        moved = self._queue.move_many("held", limit=most, with_timestamps=True)
        return [(json.loads(body), key) for body, key in moved]

    def settle(self, taken: Taken) -> None:
        self._held.delete_many([key for _, key in taken])

    def close(self) -> None:
        self._queue.close()
        self._held.close()


class DiskCache(Peer):
    """The queue of diskcache's Cache (``push``, ``pull``) with ``sqlite_synchronous=2``; write-ahead log by default.

    Counted: 444 fdatasync for 200 pushes and pulls.
    """

    name, module, requirement = "diskcache", "diskcache", "diskcache>=5.6"
    acknowledges = False

    def __init__(self, folder: Path) -> None:
        import diskcache  # type: ignore[import-not-found, unused-ignore]

        self._cache = diskcache.Cache(
            str(folder / "cache"), timeout=PATIENCE, eviction_policy="none", sqlite_synchronous=2
        )
        self._lock = threading.Lock()
        _sure(lambda name: self._cache._sql(f"PRAGMA {name}").fetchone()[0])

    def put(self, payload: Payload) -> None:
        with self._lock:
            self._cache.push(payload, retry=True)

    def fill(self, payloads: Sequence[Payload]) -> None:
        self._cache._sql("PRAGMA synchronous=OFF")
        for payload in payloads:
            self.put(payload)
        self._cache._sql("PRAGMA synchronous=FULL")

    def take(self, most: int) -> Taken:
        _, payload = self._cache.pull(retry=True)
        return [] if payload is None else [(payload, None)]

    def close(self) -> None:
        self._cache.close()


class AsyncPersistQueue:
    """persist-queue's AsyncSQLiteQueue: one task after the other through aiosqlite, without acknowledgement.

    It opens the file in SQLite's rollback mode; the write-ahead log is set on its connection, and FULL is SQLite's
    default. Counted: 412 fdatasync for 200 puts and gets.
    """

    name = "persist-queue, async"
    requirement = "persist-queue[async]>=1.1"

    def __init__(self, folder: Path) -> None:
        from persistqueue.async_sqlqueue import AsyncSQLiteQueue  # type: ignore[import-not-found, unused-ignore]

        self._queue = AsyncSQLiteQueue(str(folder / "persist.db"))

    async def open(self) -> None:
        await self._queue._init()
        for pragma, value in (("journal_mode", "WAL"), ("synchronous", "FULL")):
            await self._queue._conn.execute(f"PRAGMA {pragma}={value}")
        found = {name: await self._pragma(name) for name in ("journal_mode", "synchronous")}
        _sure(found.__getitem__)

    async def _pragma(self, name: str) -> Any:
        async with self._queue._conn.execute(f"PRAGMA {name}") as cursor:
            return (await cursor.fetchone())[0]

    async def put_each(self, payloads: Iterable[Payload]) -> None:
        for payload in payloads:
            await self._queue.put(payload)

    async def get(self) -> Payload:
        got: Payload = await self._queue.get()
        return got

    async def close(self) -> None:
        await self._queue.close()


@dataclass(frozen=True, slots=True)
class _Found:
    peers: tuple[type[Peer], ...]
    skipped: tuple[str, ...]


def _found() -> _Found:
    known: tuple[type[Peer], ...] = (Huey, PersistQueue, LiteQueue, LocalQueue, Honker, SimpleBroker, DiskCache)
    here = tuple(peer for peer in known if importlib.util.find_spec(peer.module))
    return _Found(
        here,
        tuple(
            f'left out: {peer.name} is not installed; pip install "{peer.requirement}"'
            for peer in known
            if peer not in here
        ),
    )


PEERS, SKIPPED = _found().peers, _found().skipped
HAS_ASYNC = importlib.util.find_spec("persistqueue") is not None and importlib.util.find_spec("aiosqlite") is not None


def _counted(name: str, n: int = 200) -> None:
    """What strace counts syncs of."""
    peer_type = next(peer for peer in PEERS if peer.name == name)
    with tempfile.TemporaryDirectory() as made:
        peer = peer_type(Path(made))
        for payload in payloads(0, n):
            peer.put(payload)
        left = n
        while left:
            taken = peer.take(TAKEN_AT_ONCE)
            peer.settle(taken)
            left -= len(taken)
        peer.close()


if __name__ == "__main__":
    _counted(sys.argv[1])
