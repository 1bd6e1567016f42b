"""A Kafka broker that, to its clients, is not there: it answers, and says that the cluster has no brokers.

That is what a single broker says of itself while its controller takes it for dead, such as after it stood still for
longer than ``broker.session.timeout.ms``: for a moment only, and the more so to those who have just waited for it.

>>> with Fenced(broker.port) as fenced:
...     proxy.target = HOST, fenced.port
...     fenced.fence()
...     fenced.unfence()
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType

from tests.servers.ports import HOST

__all__ = ["Fenced"]

METADATA = 3
FLEXIBLE = 9
"""The first version whose strings and arrays are compact."""
HEAD = struct.Struct(">hhi")
LENGTH = struct.Struct(">i")


class Fenced:
    """Listens from construction to ``close``, and connects to ``target``, a port of the loopback, for each client."""

    def __init__(self, target: int) -> None:
        self.told = 0
        """How many answers said so."""
        self._target = target
        self._fenced = False
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def fence(self) -> None:
        self._fenced = True

    def unfence(self) -> None:
        self._fenced = False

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def __enter__(self) -> Fenced:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection((HOST, self._target))
                self._sockets += [client, server]
                asked: set[int] = set()
                for way in (self._requests, self._answers):
                    threading.Thread(target=way, args=(client, server, asked), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket, asked: set[int]) -> None:
        with suppress(OSError):
            while frame := _frame(client):
                key, version, number = HEAD.unpack_from(frame)
                if key == METADATA:
                    assert version >= FLEXIBLE, version
                    asked.add(number)
                server.sendall(LENGTH.pack(len(frame)) + frame)
            server.shutdown(socket.SHUT_WR)

    def _answers(self, client: socket.socket, server: socket.socket, asked: set[int]) -> None:
        with suppress(OSError):
            while frame := _frame(server):
                (number,) = LENGTH.unpack_from(frame)
                if number in asked:
                    asked.discard(number)
                    if self._fenced:
                        frame = _without_brokers(frame)
                        self.told += 1
                client.sendall(LENGTH.pack(len(frame)) + frame)
            client.shutdown(socket.SHUT_WR)


def _frame(source: socket.socket) -> bytes:
    """Nothing when the source has ended."""
    head = _exactly(source, LENGTH.size)
    return _exactly(source, LENGTH.unpack(head)[0]) if head else b""


def _exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = source.recv(size - len(data))
        if not more:
            return b""
        data += more
    return data


def _without_brokers(frame: bytes) -> bytes:
    """Of an answer to Metadata: number, tags, throttle time, and then the brokers."""
    begin = _tags(frame, 4) + 4
    count, at = _varint(frame, begin)
    for _ in range(count - 1):
        at += 4  # node
        length, at = _varint(frame, at)
        at += length - 1 + 4  # host, port
        length, at = _varint(frame, at)
        at = _tags(frame, at + max(0, length - 1))  # rack
    return frame[:begin] + b"\x01" + frame[at:]


def _tags(frame: bytes, at: int) -> int:
    count, at = _varint(frame, at)
    for _ in range(count):
        _, at = _varint(frame, at)
        size, at = _varint(frame, at)
        at += size
    return at


def _varint(frame: bytes, at: int) -> tuple[int, int]:
    """And where it ends."""
    value = shift = 0
    while True:
        byte = frame[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
