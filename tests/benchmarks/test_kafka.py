"""Every arm of the Kafka benchmarks passes its check with few messages, and fails it when one is lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from benchmarks import (
    _report,
    kafka_consume,
    kafka_flow,
    kafka_growth,
    kafka_latency,
    kafka_publish,
    kafka_transactions,
)
from benchmarks._harness import Arm, Benchmark, Settings, measure, verify
from benchmarks._kafka import PARTITIONS, PLACE, Store, headers, producer_of, read_all, sent, warm, wiped
from benchmarks._kafka_peers import PEERS, SKIPPED
from benchmarks._redis import SIZES
from benchmarks._report import record, render
from benchmarks._sink import CheckFailed, Recorder
from tests.servers.missing import need

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of what the peers are made of
]

TEXT = SIZES["200 B"]
MODULES = (kafka_publish, kafka_consume, kafka_flow, kafka_latency, kafka_growth, kafka_transactions)
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
            replace(benchmark, arms=(arm,), check_messages=FEW if module is kafka_latency else MESSAGES),
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
    monkeypatch.setattr(PLACE, "channels", 6)


@pytest.fixture(scope="module", autouse=True)
def servers() -> Iterator[None]:
    need("kafka")
    yield
    PLACE.stop()


@pytest.mark.parametrize(("benchmark", "arm"), arms())
def test_check(benchmark: Benchmark, arm: Arm) -> None:
    verify(replace(benchmark, arms=(replace(arm, share=1.0),)), Settings())
    with pytest.raises(CheckFailed):
        verify(replace(benchmark, arms=(replace(arm, share=1.0),)), Settings(), Losing)


def test_what_is_measured_is_written_down() -> None:
    whole = kafka_consume.BENCHMARKS[0]
    result = record(whole, measure(replace(whole, messages=4000), Settings(pairs=1)))
    assert {"wall_ns", "cpu_ns", "server_ns", "per_s", "first_ns"} == result["arms"]["bus"].keys()
    assert "consume(500)" in render(result)


def test_peers_that_are_not_here_are_named() -> None:
    assert len([line for line in SKIPPED if "is not installed" in line]) == 4 - len(PEERS)


def test_peers_have_as_many_partitions_and_the_headers_of_ours() -> None:
    store = wiped(raw=True)
    assert len(PLACE.cluster.admin().list_topics(store.topic).topics[store.topic].partitions) == PARTITIONS
    assert f"partitions={PARTITIONS}" in store.url
    assert Store.of(store.url) == store
    assert [name for name, _ in headers(TEXT.payloads(0, 1)[0])] == [
        "ce_specversion",
        "ce_id",
        "ce_source",
        "ce_type",
        "ce_time",
        "content-type",
    ]


def test_only_what_counts_is_read_back() -> None:
    store = wiped(raw=True)
    producer = producer_of(store)
    sent(producer, store, [[warm(TEXT)], TEXT.payloads(0, 3)])
    sent(producer, store, [TEXT.payloads(3, 5)], sticky=True)
    assert len(read_all(store, 5)) == 5


def test_a_store_has_nothing_of_the_one_before() -> None:
    before = wiped(raw=True)
    kept, fresh = PLACE.kept("kept")
    assert fresh
    PLACE.cluster.create_topic(kept.topic, partitions=1)
    after = wiped(raw=True)
    topics = PLACE.cluster.admin().list_topics(timeout=10).topics
    assert before.topic not in topics
    assert {after.topic, kept.topic} <= topics.keys()
    assert PLACE.kept("kept") == (kept, False)


def test_the_broker_tells_what_it_has_used() -> None:
    assert PLACE.cpu_ns() > 0


def test_the_report_names_the_first_server_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_report, "SERVERS", [lambda: None, lambda: "Kafka"])
    assert _report.environment(Settings())["server"] == "Kafka"
