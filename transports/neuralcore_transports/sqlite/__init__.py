"""``sqlite://``: durable on one machine, without a server.

::

    transport.py   the contract, on the bus's loop        options.py     what a URL says
    consumer.py    readers and inboxes of it              errors.py      what can be wrong with a file
    client.py      its steps, awaited                     opening.py     rights, format, connections
    connection.py  a connection's thread (aiosqlite)      watch.py       other processes' writes
    transaction.py an application's own transaction       leases.py      what this client has in flight
    keeper.py      the thread that keeps it alive         clock.py       the store's time
    checkpoint.py  keeping the log short                  liveness.py    who has died
    log.py         reading the log's file                 room.py        the last room on a disk
    care/          looking after a file: check, repair, compact, export    command.py  the same for a terminal
    store/         the logic: synchronous, without a clock
"""

from neuralcore_transports.sqlite.errors import (
    DiskFull,
    NewerStore,
    NotAStore,
    StoreCorrupt,
    StoreError,
    StoreInUse,
    StoreLocked,
    StoreReadOnly,
)
from neuralcore_transports.sqlite.options import Durability, SqliteOptions
from neuralcore_transports.sqlite.transport import SqliteTransport

__all__ = [
    "DiskFull",
    "Durability",
    "NewerStore",
    "NotAStore",
    "SqliteOptions",
    "SqliteTransport",
    "StoreCorrupt",
    "StoreError",
    "StoreInUse",
    "StoreLocked",
    "StoreReadOnly",
]
