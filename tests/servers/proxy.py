"""A TCP proxy that fails on demand, between a client and a server of the loopback.

>>> with Proxy(server.port) as proxy:
...     client = connect(proxy.port)
...     proxy.drop_replies(after=b"XADD", cut=True)     # the next XADD is executed, and its answer is lost
...     proxy.blackhole()                               # both sides wait
...     proxy.heal()

Calls take effect before they return, and may come from any thread.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

from tests.servers.ports import HOST, free_port

__all__ = ["Counted", "Proxy"]

CHUNK = 65_536
MOST_HELD = 4 * CHUNK
RESET = struct.pack("ii", 1, 0)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Counted:
    """What has passed since the proxy began; ``lost`` are replies' bytes that it swallowed."""

    accepted: int
    to_server: int
    to_client: int
    lost: int


class Proxy:
    """Listens from construction to ``close`` on ``port``, and connects to ``target`` for each client."""

    def __init__(self, target: int, *, host: str = HOST, port: int | None = None) -> None:
        self.target = (host, target)
        self.port = port or free_port()
        self._selector = selectors.DefaultSelector()
        self._pairs: set[_Pair] = set()
        self._listener: socket.socket | None = None
        self._faults = _Faults()
        self._accepted = self._to_server = self._to_client = self._lost = 0
        self._calls: deque[Callable[[], None]] = deque()
        self._waking, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._wake)
        self._listen()
        self._open = True
        self._thread = threading.Thread(target=self._run, name=f"proxy {self.port}", daemon=True)
        self._thread.start()

    @property
    def connections(self) -> int:
        return self._do(lambda: len(self._pairs))

    @property
    def counted(self) -> Counted:
        return self._do(lambda: Counted(self._accepted, self._to_server, self._to_client, self._lost))

    def cut(self) -> int:
        """Reset all connections, on both sides; returns how many. New ones are accepted as before."""
        return self._do(self._cut)

    def refuse(self) -> None:
        """Nobody can connect; who is connected stays so."""
        self._do(self._deafen)

    def partition(self) -> None:
        """``cut`` and ``refuse``: as if the server's host were down."""
        self._do(lambda: (self._deafen(), self._cut()))

    def blackhole(self) -> None:
        """Connections are accepted, and nothing is read or forwarded; after ``heal`` it goes on where it stood."""
        self._do(lambda: self._set(blackhole=True))

    def delay(self, seconds: float) -> None:
        """Each chunk arrives so much later, in both directions."""
        self._do(lambda: self._set(delay=seconds))

    def slices(self, size: int = 1) -> None:
        """At most so many bytes in one packet."""
        self._do(lambda: self._set(slices=size))

    def drop_replies(
        self, *, after: bytes | None = None, replies: int | None = None, nbytes: int | None = None, cut: bool = False
    ) -> None:
        """Swallow what the server says, while the client's requests still arrive.

        From now on for everybody; with ``after``, for one connection only: the first whose request has these bytes in
        one chunk. It ends after ``replies`` chunks or ``nbytes`` bytes, or at ``heal``; but without these, whoever has
        missed something hears nothing any more, ever: TCP does not leave out a part of what is said. With ``cut`` the
        connection is reset in place of the first thing it does not get to hear, and that is the end of it.
        """
        self._do(lambda: self._set(loss=_Loss(after=after, replies=replies, nbytes=nbytes, cut=cut)))

    def heal(self) -> None:
        """No faults any more; what was lost stays lost, and connections that have lost something stay silent."""
        self._do(self._heal)

    def close(self) -> None:
        if self._open:
            self._do(self._shut)
            self._thread.join()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # Everything below runs in the proxy's own thread, but for _do and the constructor.

    def _do(self, call: Callable[[], _T]) -> _T:
        done: Future[_T] = Future()

        def run() -> None:
            try:
                done.set_result(call())
            except BaseException as error:
                done.set_exception(error)

        assert self._open, "the proxy is closed"
        self._calls.append(run)
        self._waking.send(b"!")
        return done.result(timeout=10)

    def _run(self) -> None:
        while self._open:
            now = time.monotonic()
            for pair in list(self._pairs):
                pair.flush(now)
            for key, events in self._selector.select(self._pause()):
                key.data(events)
        for pair in list(self._pairs):
            pair.close()
        self._selector.close()
        self._waking.close()
        self._woken.close()

    def _pause(self) -> float | None:
        due = [when for pair in self._pairs if (when := pair.due()) is not None]
        return max(0.0, min(due) - time.monotonic()) if due and not self._faults.blackhole else None

    def _wake(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(CHUNK)
        while self._calls:
            self._calls.popleft()()

    def _set(self, **faults: object) -> None:
        for name, value in faults.items():
            setattr(self._faults, name, value)
        for pair in self._pairs:
            pair.watch()

    def _heal(self) -> None:
        self._faults = _Faults()
        self._listen()
        for pair in self._pairs:
            pair.watch()

    def _cut(self) -> int:
        found = list(self._pairs)
        for pair in found:
            pair.close(reset=True)
        return len(found)

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server((HOST, self.port), backlog=512)
            self._listener.setblocking(False)
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _deafen(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _shut(self) -> None:
        self._deafen()
        self._open = False

    def _accept(self, _: int) -> None:
        assert self._listener is not None
        try:
            client, _address = self._listener.accept()
        except OSError:
            return
        self._accepted += 1
        try:
            server = socket.create_connection(self.target, timeout=1)
        except OSError:
            _close(client, reset=True)
            return
        self._pairs.add(_Pair(self, client, server))


@dataclass
class _Loss:
    after: bytes | None
    replies: int | None
    nbytes: int | None
    cut: bool
    chosen: _Pair | None = None

    def seen(self, pair: _Pair, request: bytes) -> None:
        if self.after is not None and self.chosen is None and self.after in request:
            self.chosen = pair

    def takes(self, pair: _Pair, reply: bytes) -> int:
        """How many bytes of it are lost; zero ones when it is not concerned."""
        if (self.after is not None and self.chosen is not pair) or self.replies == 0 or self.nbytes == 0:
            return 0
        taken = len(reply) if self.nbytes is None else min(self.nbytes, len(reply))
        if self.nbytes is not None:
            self.nbytes -= taken
        if self.replies is not None:
            self.replies -= 1
        if self.cut:
            self.replies = 0
        elif taken and self.replies is None and self.nbytes is None:
            pair.mute = True
        return taken


@dataclass
class _Faults:
    blackhole: bool = False
    delay: float = 0.0
    slices: int | None = None
    loss: _Loss | None = None


class _Way:
    """One direction of a connection, and what is on it."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.held: deque[tuple[float, memoryview]] = deque()
        self.size = 0
        self.stuck = False  # the sink takes no more for now
        self.ended = False  # the source has said everything
        self.closed = False  # and the sink knows

    def add(self, due: float, data: bytes) -> None:
        self.held.append((due, memoryview(data)))
        self.size += len(data)

    def send(self, now: float, slices: int | None) -> int:
        """Give the sink what is due. Returns how much; raises OSError when it is gone."""
        sent = 0
        while self.held and self.held[0][0] <= now and not self.stuck:
            due, data = self.held[0]
            try:
                taken = self.sink.send(data[:slices] if slices else data)
            except BlockingIOError:
                self.stuck = True
                break
            sent += taken
            self.held.popleft()
            if taken < len(data):
                self.held.appendleft((due, data[taken:]))
        self.size -= sent
        if self.ended and not self.held and not self.closed:
            self.sink.shutdown(socket.SHUT_WR)
            self.closed = True
        return sent


class _Pair:
    """A client's connection and the one to the server."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._there = _Way(client, server)
        self._back = _Way(server, client)
        self._watched: dict[socket.socket, int] = {}
        for side in (client, server):
            side.setblocking(False)
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._gone = False
        self.mute = False  # it has missed something, and so misses the rest
        self.watch()

    def due(self) -> float | None:
        heads = [way.held[0][0] for way in (self._there, self._back) if way.held and not way.stuck]
        return min(heads) if heads else None

    def flush(self, now: float) -> None:
        faults = self._proxy._faults
        if faults.blackhole or self._gone:
            return
        try:
            self._proxy._to_server += self._there.send(now, faults.slices)
            self._proxy._to_client += self._back.send(now, faults.slices)
        except OSError:
            self.close(reset=True)
            return
        if self._there.closed and self._back.closed:
            self.close()
        else:
            self.watch()

    def watch(self) -> None:
        """Tell the selector what is of interest now: nothing at all in a black hole."""
        if self._gone:
            return
        for side, incoming, outgoing in (
            (self._client, self._there, self._back),
            (self._server, self._back, self._there),
        ):
            events = 0
            if not self._proxy._faults.blackhole:
                events |= selectors.EVENT_READ if not incoming.ended and incoming.size < MOST_HELD else 0
                events |= selectors.EVENT_WRITE if outgoing.stuck else 0
            self._watch(side, incoming, outgoing, events)

    def close(self, *, reset: bool = False) -> None:
        if self._gone:
            return
        self._gone = True
        for side in (self._client, self._server):
            if self._watched.pop(side, 0):
                self._proxy._selector.unregister(side)
            _close(side, reset=reset)
        self._proxy._pairs.discard(self)

    def _watch(self, side: socket.socket, incoming: _Way, outgoing: _Way, events: int) -> None:
        before = self._watched.get(side, 0)
        if events == before:
            return
        self._watched[side] = events
        if not events:
            self._proxy._selector.unregister(side)
        elif before:
            self._proxy._selector.modify(side, events, lambda seen: self._ready(incoming, outgoing, seen))
        else:
            self._proxy._selector.register(side, events, lambda seen: self._ready(incoming, outgoing, seen))

    def _ready(self, incoming: _Way, outgoing: _Way, events: int) -> None:
        if self._gone or self._proxy._faults.blackhole:  # since the selector looked
            return
        if events & selectors.EVENT_WRITE:
            outgoing.stuck = False
        if events & selectors.EVENT_READ:
            self._read(incoming)

    def _read(self, way: _Way) -> None:
        try:
            data = way.source.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self.close(reset=True)
            return
        if not data:
            way.ended = True
            return
        faults = self._proxy._faults
        if self.mute and way is self._back:
            self._proxy._lost += len(data)
            return
        if faults.loss is not None:
            if way is self._there:
                faults.loss.seen(self, data)
            else:
                data = self._lose(faults.loss, data)
        if data and not self._gone:
            way.add(time.monotonic() + faults.delay, data)

    def _lose(self, loss: _Loss, reply: bytes) -> bytes:
        taken = loss.takes(self, reply)
        self._proxy._lost += taken
        if taken and loss.cut:
            self.close(reset=True)
            return b""
        return reply[taken:]


def _close(side: socket.socket, *, reset: bool) -> None:
    with contextlib.suppress(OSError):
        if reset:
            side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    side.close()
