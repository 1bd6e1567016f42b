"""Every arm of the Redis benchmarks passes its check with few messages, and fails it when one is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import redis_consume, redis_flow, redis_growth, redis_latency, redis_publish
from benchmarks._harness import Arm, Benchmark, Settings, measure, verify
from benchmarks._loads import LOADS, RATE, Load, at_rate, latencies
from benchmarks._redis import BATCH, PLACE, SIZES, Payload, Text, batches, encoded, wiped
from benchmarks._redis_peers import PEERS, SKIPPED, Raw
from benchmarks._redis_process import Child
from benchmarks._redis_server import Server, binary, told, used
from benchmarks._report import record, render
from benchmarks._sink import CheckFailed, Recorder
from tests.servers.missing import need

MODULES = (redis_publish, redis_consume, redis_flow, redis_latency, redis_growth)
MESSAGES = 48
FEW = 24
"""Where each is waited for."""


class Losing(Recorder):
    """The second message of all."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def record(self, stream: str, item: Any) -> None:
        self.count += 1
        if self.count != 2:
            super().record(stream, item)


def arms() -> list[Any]:
    return [
        pytest.param(
            replace(benchmark, arms=(arm,), check_messages=FEW if module is redis_latency else MESSAGES),
            arm,
            id=f"{benchmark.name}: {arm.name}",
        )
        for module in MODULES
        for benchmark in module.BENCHMARKS
        for arm in benchmark.arms
    ]


@pytest.fixture(autouse=True)
def few_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PLACE, "backlog", 200)


@pytest.fixture(scope="module", autouse=True)
def servers() -> Iterator[None]:
    need("redis-7.0")
    yield
    PLACE.stop()


@pytest.mark.parametrize(("benchmark", "arm"), arms())
def test_check(benchmark: Benchmark, arm: Arm) -> None:
    verify(replace(benchmark, arms=(replace(arm, share=1.0),)), Settings())
    with pytest.raises(CheckFailed):
        verify(replace(benchmark, arms=(replace(arm, share=1.0),)), Settings(), Losing)


def test_what_is_measured_is_written_down() -> None:
    whole = redis_consume.BENCHMARKS[0]
    result = record(whole, measure(replace(whole, messages=200), Settings(pairs=1)))
    assert {"wall_ns", "cpu_ns", "server_ns", "per_s"} == result["arms"]["bus"].keys()
    assert "XREADGROUP" in render(result)


def test_peers_that_are_not_here_are_named() -> None:
    assert len([line for line in SKIPPED if "is not installed" in line]) == 4 - len(PEERS)


async def test_a_message_of_another_load_is_none_of_those_that_were_published() -> None:
    url = wiped().url
    async with Raw.open(url) as publisher, Child(Raw.kind, url, 2, Load(size="10 kB")) as child:
        await publisher.publish(SIZES["200 B"].payloads(0, 1)[0])
        await publisher.publish(SIZES["10 kB"].payloads(1, 2)[0])
        assert (await child.told())["numbers"] == [-1, 1]


def test_all_loads_are_asked_for_and_each_has_a_name_of_its_own() -> None:
    assert len({(load.text.size, load.publishers, load.nap_ms) for load in LOADS}) == 8
    for module in (redis_flow, redis_latency):
        assert len({benchmark.name for benchmark in module.BENCHMARKS}) == 8
        targets = [target.what for benchmark in module.BENCHMARKS for target in benchmark.targets]
        assert len(set(targets)) == len(targets) > 0


async def test_publishers_take_turns_at_one_rate() -> None:
    parts = Load(publishers=4).parts(12)
    left = await at_rate(_published_slowly, parts)
    in_turn = [part[turn]["i"] for turn in range(3) for part in parts]
    assert sorted(left, key=left.__getitem__) == in_turn
    assert left[in_turn[-1]] - left[in_turn[0]] >= 10.5 * 1e9 / RATE


async def _published_slowly(payload: Payload) -> None:
    """For longer than the distance between two messages, which are not of the same publisher."""
    await asyncio.sleep(2 / RATE)


@pytest.mark.parametrize("numbers", [[0, -1], [0], [0, 1, 2]])
def test_latencies_are_those_of_what_was_published(numbers: list[int]) -> None:
    assert latencies({0: 10, 1: 20}, {"numbers": [1, 0], "moments": [50, 40]})["p50_ns"] == 30
    with pytest.raises(CheckFailed):
        latencies({0: 10, 1: 20}, {"numbers": numbers, "moments": [40] * len(numbers)})


@pytest.mark.parametrize("size", [200, 10_000])
def test_bodies_are_about_as_long_as_they_are_said_to_be(size: int) -> None:
    body = encoded(Text(size).payloads(1234, 1235)[0])
    assert len(body) == size


def test_batches_are_whole() -> None:
    payloads = Text(200).payloads(0, 2 * BATCH + 1)
    assert [len(batch) for batch in batches(payloads)] == [BATCH, BATCH, 1]


def test_a_server_syncs_before_it_answers_for_one_run_only(monkeypatch: pytest.MonkeyPatch) -> None:
    import redis

    asked: list[str] = []

    async def publish(*_: object) -> None:
        asked.append(client.config_get("appendfsync")["appendfsync"])
        raise CheckFailed("enough")

    monkeypatch.setattr(redis_publish, "raw_publish_batches", publish)
    synced = next(each for each in redis_publish.BENCHMARKS if "appendfsync always" in each.name)
    with redis.Redis.from_url(PLACE.server().url, decode_responses=True) as client:
        with pytest.raises(CheckFailed, match="enough"):
            verify(replace(synced, arms=synced.arms[1:2]), Settings())
        asked.append(client.config_get("appendfsync")["appendfsync"])
    assert asked == ["always", "everysec"]


def test_a_server_is_emptied_and_ends(tmp_path: Path) -> None:
    found = binary("7.0")
    assert found
    server = Server(found, tmp_path)
    import redis

    with redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
        assert server.connections() == 1
        assert client.config_get("append*")["appendonly"] == "yes"
        server.wipe()
        assert client.dbsize() == 0
        server.rewrite()
    before = server.cpu_ns()
    assert before > 0
    server.stop()
    with pytest.raises(redis.ConnectionError):
        redis.Redis.from_url(server.url, retry=None).ping()


def test_the_report_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import _redis_server

    monkeypatch.setattr(_redis_server, "_used", [])
    assert told() is None
    used("7.0")
    assert (told() or "").startswith("Redis 7.")
