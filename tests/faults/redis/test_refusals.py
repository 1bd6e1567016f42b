"""The server refuses, for a while, for each of its reasons. Recovery is from its end until every producer has published
again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from operator import gt
from pathlib import Path

import pytest
from redis import RedisError

from tests.faults.acts import begun, go_on
from tests.faults.plan import tell, times
from tests.faults.processes import Worker
from tests.faults.redis.stage import RedisStage
from tests.faults.report import Figures
from tests.faults.stage import reply
from tests.servers.ports import free_port, until
from tests.servers.redis import RedisServer

STREAM = "nc:{work}:p:50"
SPINS = "while true do end"


@contextmanager
def out_of_memory(server: RedisServer) -> Iterator[None]:
    with server.client() as client:
        client.config_set("maxmemory", 1)
        yield
        client.config_set("maxmemory", 0)


@contextmanager
def read_only(server: RedisServer) -> Iterator[None]:
    """A replica of nobody: what it has it keeps."""
    with server.client() as client:
        client.replicaof("127.0.0.1", free_port())
        yield
        client.replicaof("NO", "ONE")


@contextmanager
def busy(server: RedisServer) -> Iterator[None]:
    """Somebody's script runs and runs."""
    with server.client() as client, server.client(socket_timeout=None) as other:
        client.config_set("lua-time-limit", 10)

        def spin() -> None:
            with suppress(RedisError):  # it is killed
                other.eval(SPINS, 0)

        spinning = threading.Thread(target=spin)
        spinning.start()
        yield
        until(lambda: _killed(server), timeout=10, what="the end of a script")
        spinning.join()


def _killed(server: RedisServer) -> bool:
    with suppress(RedisError), server.client() as client:
        return bool(client.script_kill())
    return False


@contextmanager
def scripts_forgotten(server: RedisServer) -> Iterator[None]:
    with server.client() as client:
        client.script_flush()
        client.function_flush()
        yield


@contextmanager
def group_destroyed(server: RedisServer) -> Iterator[None]:
    with server.client() as client:
        assert client.xgroup_destroy(STREAM, "g") == 1
        yield


@contextmanager
def right_withdrawn(server: RedisServer) -> Iterator[None]:
    with server.client() as client:
        client.acl_setuser("default", enabled=True, nopass=True, commands=["-evalsha", "-fcall"])
        yield
        client.acl_setuser("default", enabled=True, nopass=True, commands=["+evalsha", "+fcall"])


def acked(producers: list[Worker]) -> list[int]:
    return [begun(producer.lines, "acked") for producer in producers]


Fault = Callable[[RedisServer], AbstractContextManager[None]]


@pytest.mark.parametrize(
    ("row", "name", "fault", "refuses"),
    [
        (7, "out of memory (OOM)", out_of_memory, True),
        (8, "a replica (READONLY)", read_only, True),
        (5, "a script that does not end (BUSY)", busy, True),
        (8, "its scripts forgotten (NOSCRIPT)", scripts_forgotten, False),
        (8, "a right withdrawn (NOPERM)", right_withdrawn, True),
        (16, "a group destroyed (NOGROUP)", group_destroyed, False),
    ],
)
def test_it_goes_on_and_nothing_is_lost(
    tmp_path: Path, start_redis: Callable[..., RedisServer], row: int, name: str, fault: Fault, refuses: bool
) -> None:
    server = start_redis(appendfsync="everysec")
    with RedisStage(tmp_path, server, query="lease=1&timeout=2&patience=3") as stage:
        consumers = [stage.consumer(concurrency=2, work=0.005) for _ in range(2)]
        producers = [stage.producer(at_once=2, keys=5, pause=0.01) for _ in range(2)]
        recoveries = []
        for _ in range(times(3, 40)):
            go_on(producers)
            stage.journal.fault(name)
            with fault(server):
                time.sleep(0.1)
                before = acked(producers)
                time.sleep(stage.moments.next(0.1, 1.0))
                assert refuses is (acked(producers) == before), "it is said that it refuses, and it does"
            ended, before = time.monotonic(), acked(producers)
            until(lambda: all(map(gt, acked(producers), before)), timeout=20, what="publishes")  # noqa: B023
            recoveries.append(time.monotonic() - ended)
        for producer in producers:
            reply(producer, "stop")
        stage.until_settled(timeout=20)
        lost = sum(reply(consumer)["counts"].get("data_lost", 0) for consumer in consumers)
        story = stage.story()
        tell(row, name, replace(Figures.of(story, f"losses told of: {lost}"), recoveries=recoveries))
        story.check()
        assert (lost > 0) is (fault is group_destroyed)
        assert stage.debris(timeout=20) == []
