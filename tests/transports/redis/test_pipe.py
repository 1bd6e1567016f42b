"""One connection, many callers."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import time

import pytest
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from neuralcore_transports.redis.options import RedisOptions
from neuralcore_transports.redis.pipe import Broken, NotSent, Pipe
from neuralcore_transports.redis.servers import connection_to
from tests.transports.redis.clients import eventually, new_prefix


@pytest.fixture
async def make(redis_server):
    pipes = []

    async def make(port=None, timeout=5.0, on_push=None, server=redis_server):
        options = RedisOptions.from_url(server.url(port=port))
        pipe = Pipe(connection_to(options, options.hosts[0]), timeout, on_push)
        await pipe.open()
        pipes.append(pipe)
        return pipe

    yield make
    for pipe in pipes:
        await pipe.close()


async def test_answers_come_in_the_order_of_the_commands(make):
    pipe = await make()
    answers = [pipe.call("ECHO", number) for number in range(5000)]
    assert await asyncio.gather(*answers) == [b"%d" % number for number in range(5000)]


@pytest.mark.parametrize("seed", range(3))
async def test_in_slices_of_some_bytes_too(make, redis_server, proxy_to, seed):
    proxy = proxy_to(redis_server.port)
    pipe = await make(proxy.port)
    chance = random.Random(seed)
    proxy.slices(chance.choice([1, 7, 100]))
    texts = ["x" * chance.choice([0, 1, 50, 500]) for _ in range(100)]
    assert await asyncio.gather(*(pipe.call("ECHO", text) for text in texts)) == [text.encode() for text in texts]


@pytest.mark.parametrize("seed", range(5))
async def test_callers_that_are_cancelled_cause_no_disorder(make, seed):
    pipe, chance = await make(), random.Random(seed)

    async def ask(number: int) -> bytes:
        return await pipe.call("ECHO", number)

    asking = []
    for number in range(1000):
        asking.append(asyncio.ensure_future(ask(number)))
        if chance.random() < 0.3:
            chance.choice(asking).cancel()
        if chance.random() < 0.1:
            await asyncio.sleep(0)
    found = await asyncio.gather(*asking, return_exceptions=True)
    came = [(number, answer) for number, answer in enumerate(found) if not isinstance(answer, asyncio.CancelledError)]
    assert 300 < len(came) < 1000
    assert came == [(number, b"%d" % number) for number, _ in came]
    assert not pipe.broken


async def test_an_error_is_told_to_its_caller_alone(make):
    pipe = await make()
    calls = [pipe.call("ECHO", "a"), pipe.call("NONSENSE"), pipe.call("GET"), pipe.call("ECHO", "b")]
    a, unknown, wrong, b = await asyncio.gather(*calls, return_exceptions=True)
    assert (a, b) == (b"a", b"b")
    assert isinstance(unknown, ResponseError)
    assert "unknown command 'NONSENSE'" in str(unknown)
    assert "wrong number of arguments" in str(wrong)
    assert not pipe.broken


async def test_an_error_that_nobody_waits_for_any_more_is_nobody_else_s(make):
    pipe = await make()
    wrong, right = pipe.call("NONSENSE"), pipe.call("ECHO", "b")
    wrong.cancel()
    assert await right == b"b"


async def test_errors_that_the_library_takes_for_a_lost_connection_break_nothing(start_redis, make):
    """LOADING, MASTERDOWN and the like are answers."""
    server = start_redis()
    with server.client() as admin:
        admin.replicaof("127.0.0.1", "1")
        admin.config_set("replica-serve-stale-data", "no")
    pipe = await make(server=server)
    found = await asyncio.gather(pipe.call("GET", "x"), pipe.call("PING"), return_exceptions=True)
    assert "MASTERDOWN" in f"{found[0].status_code} {found[0]}"
    assert not pipe.broken


async def test_large_commands_wait_for_the_socket_and_stay_in_order(make, redis_server, proxy_to):
    """Also while the server reads nothing."""
    proxy = proxy_to(redis_server.port)
    pipe = await make(proxy.port)
    proxy.blackhole()
    size = 1 << 20
    answers = [pipe.call("ECHO", bytes([number]) * size) for number in range(20)]
    small = pipe.call("ECHO", "small")
    await asyncio.sleep(0.05)
    assert not any(answer.done() for answer in answers)
    proxy.heal()
    for number, answer in enumerate(answers):
        assert await answer == bytes([number]) * size
    assert await small == b"small"


async def test_a_missing_answer_breaks_it_for_all_who_wait(make, redis_server, proxy_to):
    proxy = proxy_to(redis_server.port)
    pipe = await make(proxy.port, timeout=0.4)
    broken: list[Exception] = []
    pipe.on_broken = broken.append
    assert await pipe.call("PING") == b"PONG"
    proxy.blackhole()
    began = time.monotonic()
    found = await asyncio.gather(*(pipe.call("PING") for _ in range(3)), return_exceptions=True)
    assert 0.3 < time.monotonic() - began < 1.5
    assert [type(each) for each in found] == [Broken] * 3
    assert "no answer within 0.4 s" in str(found[0])
    assert pipe.broken
    assert len(broken) == 1
    with pytest.raises(NotSent):
        pipe.call("PING")


async def test_a_slow_answer_is_waited_for_as_long_as_answers_come(make, redis_server, proxy_to):
    proxy = proxy_to(redis_server.port)
    pipe = await make(proxy.port, timeout=0.5)
    proxy.delay(0.15)
    for _ in range(4):
        assert await pipe.call("PING") == b"PONG"


async def test_an_answer_that_takes_longer_than_that_is_waited_for_while_it_comes(make):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            if b"GET" not in data:
                writer.write(b"+OK\r\n" * data.count(b"*"))
                continue
            for part in (b"$8\r\n", *(b"%d" % number for number in range(8)), b"\r\n"):
                await asyncio.sleep(0.1)
                writer.write(part)
        writer.close()

    fake = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with fake:
        pipe = await make(fake.sockets[0].getsockname()[1], timeout=0.4)
        assert await pipe.call("GET", "slow") == b"01234567"
        await pipe.close()


async def test_a_loop_that_was_blocked_for_longer_than_that_takes_what_is_there(make):
    pipe = await make(timeout=0.3)
    answer = pipe.call("ECHO", "there")
    time.sleep(0.6)  # noqa: ASYNC251 - that is the point
    assert await answer == b"there"
    assert not pipe.broken


@pytest.mark.parametrize("reset", [False, True])
async def test_a_server_that_leaves_right_after_its_greeting_is_noticed_at_once(reset):
    """Whoever was told of the end of the connection was its former reader."""
    greetings = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal greetings
        while data := await reader.read(4096):
            writer.write(b"+OK\r\n" * data.count(b"*"))
            greetings += 1
            if b"LIB-VER" in data or b"lib-ver" in data.lower():
                break
        if reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            await writer.drain()
            writer.transport.abort()
        else:
            writer.close()

    fake = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with fake:
        options = RedisOptions.from_url(f"redis://127.0.0.1:{fake.sockets[0].getsockname()[1]}")
        for _ in range(20):
            pipe = Pipe(connection_to(options, options.hosts[0]), 5.0)

            async def ask(pipe: Pipe = pipe) -> None:
                await pipe.open()
                await pipe.call("PING")

            began = time.monotonic()
            with pytest.raises((ConnectionError, RedisError)):
                await ask()
            assert time.monotonic() - began < 2
            assert pipe.broken
            await asyncio.wait_for(pipe.close(), 2)
    assert greetings >= 20


async def test_a_connection_that_is_cut_fails_all_who_wait_and_tells_so_once(make, redis_server, proxy_to):
    proxy = proxy_to(redis_server.port)
    pipe = await make(proxy.port)
    broken: list[Exception] = []
    pipe.on_broken = broken.append
    waiting = [pipe.call("BLPOP", new_prefix(), 0) for _ in range(3)]
    proxy.cut()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in found] == [Broken] * 3
    with pytest.raises(NotSent):
        pipe.tell("PING")
    assert len(broken) == 1


async def test_a_server_that_closes_the_connection(make, start_redis):
    server = start_redis()
    pipe = await make(server=server)
    id = await pipe.call("CLIENT", "ID")
    with server.client() as admin:
        admin.client_kill_filter(_id=id)
    await eventually(lambda: pipe.broken, "it to be noticed")


async def test_an_answer_that_is_no_protocol_breaks_it(make):
    """A server that speaks something else."""
    greeted = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(b"nonsense\r\n" if greeted.is_set() else b"+OK\r\n" * data.count(b"*"))
        writer.close()

    fake = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with fake:
        pipe = await make(fake.sockets[0].getsockname()[1])
        greeted.set()
        with pytest.raises(Broken):
            await pipe.call("PING")
        await pipe.close()


async def test_close_fails_who_waits_and_is_harmless_when_repeated(make):
    pipe = await make()
    waiting = pipe.call("BLPOP", new_prefix(), 0)
    await pipe.close()
    with pytest.raises(Broken, match="closed"):
        await waiting
    with pytest.raises(NotSent, match="closed"):
        pipe.call("PING")
    await pipe.close()


async def test_close_while_a_large_command_is_on_its_way(make, redis_server, proxy_to):
    proxy = proxy_to(redis_server.port)
    pipe = await make(proxy.port)
    proxy.blackhole()
    waiting = [pipe.call("ECHO", b"x" * (1 << 22)) for _ in range(3)]
    await asyncio.wait_for(pipe.close(), 2)
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in found] == [Broken] * 3


async def test_what_the_server_tells_is_no_answer(make):
    heard: list[list[bytes]] = []
    pipe = await make(on_push=heard.append)
    other = await make()
    topic = new_prefix()
    pipe.tell("SUBSCRIBE", topic)
    await eventually(lambda: heard, "the subscription")
    told = [other.call("PUBLISH", topic, number) for number in range(100)]
    answers = [pipe.call("ECHO", number) for number in range(100)]
    assert await asyncio.gather(*answers) == [b"%d" % number for number in range(100)]
    await asyncio.gather(*told)
    await eventually(lambda: len(heard) == 101, "what was told")
    assert [list(each) for each in heard[1:]] == [[b"message", topic.encode(), b"%d" % n] for n in range(100)]


async def test_a_subscription_that_is_refused_breaks_it_with_the_reason(start_redis, make):
    server = start_redis(users={"deaf": "on >x resetchannels ~* +@all"})
    options = RedisOptions.from_url(server.url(user="deaf", password="x"))
    pipe = Pipe(connection_to(options, options.hosts[0]), 5.0)
    await pipe.open()
    broken = asyncio.get_running_loop().create_future()
    pipe.on_broken = broken.set_result
    pipe.tell("SUBSCRIBE", "topic")
    assert isinstance(await asyncio.wait_for(broken, 2), NoPermissionError)
    await pipe.close()


async def test_where_nobody_listens_it_cannot_be_opened(redis_server, proxy_to):
    proxy = proxy_to(redis_server.port)
    options = RedisOptions.from_url(redis_server.url(port=proxy.port))
    proxy.blackhole()
    pipe = Pipe(connection_to(options, options.hosts[0]), 0.3)
    with pytest.raises(asyncio.TimeoutError, match=r"no greeting within 0\.3 s"):
        await pipe.open()
    with pytest.raises(NotSent):
        pipe.call("PING")
    await pipe.close()


async def test_who_is_cancelled_just_as_it_opens_ends(redis_server):
    """Or its owner, which waits for that, never would."""
    options = RedisOptions.from_url(redis_server.url())
    connection = connection_to(options, options.hosts[0])
    connect = connection.connect

    async def connect_and_cancel() -> None:
        await connect()
        opening.cancel()

    connection.connect = connect_and_cancel
    pipe = Pipe(connection, 5.0)
    opening = asyncio.ensure_future(pipe.open())
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert pipe.broken
    assert not connection.is_connected
