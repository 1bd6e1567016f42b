"""The proxy's faults, seen from both sides."""

import socket
import threading
import time
from contextlib import suppress

import pytest

from tests.servers.ports import HOST, until
from tests.servers.proxy import Proxy


class Echo:
    """Sends everything back, and keeps what it got."""

    def __init__(self):
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self.got = b""
        self.reset = threading.Event()
        self.ended = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                side, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(side,), daemon=True).start()

    def _serve(self, side):
        with side:
            try:
                while data := side.recv(65536):
                    self.got += data
                    side.sendall(data)
                self.ended.set()
            except OSError:
                self.reset.set()


@pytest.fixture
def echo():
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo):
    with Proxy(echo.port) as made:
        yield made


@pytest.fixture
def connect(proxy):
    made = []

    def connected() -> socket.socket:
        made.append(socket.create_connection((HOST, proxy.port), timeout=5))
        return made[-1]

    yield connected
    for side in made:
        side.close()


def ask(side: socket.socket, data: bytes) -> bytes:
    side.sendall(data)
    return exactly(side, len(data))


def exactly(side: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size and (more := side.recv(65536)):
        found += more
    return found


def silent(side: socket.socket) -> bool:
    side.settimeout(0.1)
    try:
        return not side.recv(1)
    except TimeoutError:
        return True
    finally:
        side.settimeout(5)


def test_it_forwards_and_counts(proxy, connect):
    one, two = connect(), connect()
    assert ask(one, b"hello") == b"hello"
    assert ask(two, b"you") == b"you"
    counted = proxy.counted
    assert (counted.accepted, counted.to_server, counted.to_client, counted.lost) == (2, 8, 8, 0)
    assert proxy.connections == 2


def test_much_at_once(echo, connect):
    side = connect()
    data = bytes(range(256)) * 40_000
    sender = threading.Thread(target=side.sendall, args=(data,))
    sender.start()
    assert exactly(side, len(data)) == data
    sender.join()
    assert echo.got == data


def test_an_end_is_passed_on(proxy, echo, connect):
    side = connect()
    side.sendall(b"last words")
    side.shutdown(socket.SHUT_WR)
    assert exactly(side, 99) == b"last words"
    assert echo.ended.wait(5)
    until(lambda: not proxy.connections, timeout=5, what="the end of the connection")


def test_cut_resets_both_sides_and_lets_new_ones_in(proxy, echo, connect):
    side = connect()
    ask(side, b"x")
    assert proxy.cut() == 1
    with pytest.raises(ConnectionResetError):
        side.recv(1)
    assert echo.reset.wait(5)
    assert ask(connect(), b"again") == b"again"


def test_refused_ones_can_come_back(proxy, connect):
    side = connect()
    ask(side, b"x")
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        connect()
    assert ask(side, b"still") == b"still"
    proxy.heal()
    assert ask(connect(), b"again") == b"again"


def test_partitioned(proxy, connect):
    side = connect()
    ask(side, b"x")
    proxy.partition()
    with pytest.raises(ConnectionResetError):
        side.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect()


def test_a_black_hole_takes_connections_and_answers_later(proxy, echo, connect):
    old = connect()
    ask(old, b"x")
    proxy.blackhole()
    new = connect()
    old.sendall(b"old")
    new.sendall(b"new")
    assert silent(old)
    assert silent(new)
    assert echo.got == b"x"
    proxy.heal()
    assert exactly(old, 3) == b"old"
    assert exactly(new, 3) == b"new"


def test_delay(proxy, connect):
    side = connect()
    ask(side, b"x")
    proxy.delay(0.1)
    began = time.monotonic()
    assert ask(side, b"late") == b"late"
    assert 0.2 <= time.monotonic() - began < 1
    proxy.heal()
    began = time.monotonic()
    ask(side, b"x")
    assert time.monotonic() - began < 0.1


def test_slices(proxy, connect):
    side = connect()
    proxy.slices()
    data = bytes(range(256)) * 40
    side.sendall(data[:1])
    assert side.recv(10) == data[:1]
    assert ask(side, data) == data
    assert proxy.counted.to_client == len(data) + 1


def test_replies_are_lost_while_requests_arrive(proxy, echo, connect):
    side = connect()
    ask(side, b"before")
    proxy.drop_replies()
    side.sendall(b"lost")
    until(lambda: proxy.counted.lost == 4, timeout=5, what="the loss")
    assert echo.got == b"beforelost"
    assert silent(side)
    other = connect()
    proxy.heal()
    side.sendall(b"after")
    assert silent(side), "the bytes that follow lost ones are no reply to anything"
    assert ask(other, b"after") == b"after"


def test_so_many_replies(proxy, connect):
    side = connect()
    proxy.drop_replies(replies=1)
    side.sendall(b"lost")
    assert silent(side)
    assert ask(side, b"heard") == b"heard"


def test_so_many_bytes(proxy, connect):
    side = connect()
    proxy.drop_replies(nbytes=6)
    side.sendall(b"lost heard")
    assert exactly(side, 4) == b"eard"
    assert ask(side, b"more") == b"more"


def test_the_reply_to_one_request_is_lost_with_its_connection(proxy, echo, connect):
    one, two = connect(), connect()
    proxy.drop_replies(after=b"ADD", cut=True)
    assert ask(one, b"GET") == b"GET"
    two.sendall(b"ADD 1")
    with pytest.raises(ConnectionResetError):
        two.recv(1)
    assert echo.got == b"GETADD 1"
    assert ask(one, b"ADD 2") == b"ADD 2"
    assert ask(connect(), b"ADD 3") == b"ADD 3"


def test_a_server_that_is_down(proxy, echo, connect):
    echo.close()
    with pytest.raises(ConnectionError):
        ask(connect(), b"x")


def test_a_server_that_dies_takes_the_connection_along(start_redis, proxy_to):
    server = start_redis()
    proxy = proxy_to(server.port)
    with socket.create_connection((HOST, proxy.port), timeout=5) as side:
        side.sendall(b"PING\r\n")
        assert side.recv(99) == b"+PONG\r\n"
        server.kill()
        with suppress(ConnectionResetError):
            assert side.recv(1) == b""


def test_closed_it_leaves_nothing(echo):
    with Proxy(echo.port) as proxy:
        side = socket.create_connection((HOST, proxy.port), timeout=5)
        ask(side, b"x")
    with side:
        assert side.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, proxy.port), timeout=5)
    proxy.close()
