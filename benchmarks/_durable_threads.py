"""Peers whose calls block: their publishers and their consumer are threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from benchmarks._durable import Payload
from benchmarks._durable_peers import NAP, TAKEN_AT_ONCE, Peer
from benchmarks._sink import CheckFailed

__all__ = ["Consumer", "put_at_once", "take_all"]

Put = Callable[[Payload], object]

PATIENCE = 60.0
"""Seconds without a message after which the missing ones are lost."""


def _put_all(put: Put, part: Sequence[Payload]) -> None:
    for payload in part:
        put(payload)


def put_at_once(put: Put, parts: Sequence[Sequence[Payload]]) -> None:
    """Each part from a thread of its own; a single one from this."""
    if len(parts) == 1:
        _put_all(put, parts[0])
        return
    with ThreadPoolExecutor(len(parts)) as threads:
        for done in [threads.submit(_put_all, put, part) for part in parts]:
            done.result()


def take_all(peer: Peer, n: int, handle: Callable[[Any], object]) -> None:
    """Handle and settle so many messages; raises CheckFailed when they do not come."""
    done, last = 0, time.monotonic()
    while done < n:
        if taken := peer.take(min(n - done, TAKEN_AT_ONCE)):
            for payload, _ in taken:
                handle(payload)
            peer.settle(taken)
            done += len(taken)
            last = time.monotonic()
        elif time.monotonic() - last > PATIENCE:
            raise CheckFailed(f"{peer.name}: {n - done} messages did not come")
        else:
            time.sleep(NAP)


class Consumer:
    """A thread that takes, handles and settles while others publish."""

    def __init__(self, peer: Peer, n: int, handle: Callable[[Any], object]) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._done: Future[None] = self._thread.submit(take_all, peer, n, handle)

    def join(self) -> None:
        self._done.result()
        self._thread.shutdown()
