"""What the client library tells of its clients becomes metrics."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from neuralcore import MessageBus
from neuralcore_transports.kafka import statistics as module
from neuralcore_transports.kafka.options import KafkaOptions
from neuralcore_transports.kafka.statistics import Statistics
from tests.transports.clients import eventually


class Shown:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.gauges: dict[str, float] = {}
        self.statistics = Statistics(self.count, self.gauges.__setitem__, 1.0)

    def count(self, name: str, amount: int) -> None:
        self.counts[name] += amount


def text(*, up: int = 1, rtt: int = 0, fetched: int = 0, **more: int) -> str:
    brokers: dict[str, Any] = {
        f"b{n}": {"nodeid": n, "state": "UP" if n < up else "DOWN", "connects": 1, "rtt": {"p99": rtt, "p50": 1}}
        for n in range(3)
    }
    brokers["coordinator"] = {"nodeid": -1, "state": "UP"}
    topics = {"t": {"partitions": {"0": {"fetchq_cnt": fetched}, "-1": {"fetchq_cnt": 0}}, "age": 7}}
    return json.dumps({"name": "x", "brokers": brokers, "topics": topics, **more})


def test_counters_are_what_came_since_the_last_time() -> None:
    shown = Shown()
    one, two = shown.statistics.of_a_client(), shown.statistics.of_a_client()
    one(text(tx=5, tx_bytes=100))
    two(text(tx=3))
    one(text(tx=7, tx_bytes=150))
    assert shown.counts["requests_sent"] == 10
    assert shown.counts["bytes_sent"] == 150
    assert shown.counts["connects"] == 6


def test_a_broker_that_is_not_listed_any_more_takes_nothing_back() -> None:
    shown = Shown()
    one = shown.statistics.of_a_client()
    one(text())
    one(json.dumps({"brokers": {}}))
    assert shown.counts["connects"] == 3


def test_gauges_are_of_all_clients_together() -> None:
    shown = Shown()
    one, two = shown.statistics.of_a_client(), shown.statistics.of_a_client()
    one(text(msg_cnt=4, msg_size=40, up=2, rtt=2_000, fetched=1))
    two(text(msg_cnt=5, msg_size=50, up=3, rtt=1_000, fetched=2))
    assert shown.gauges == {
        "messages_to_send": 9,
        "bytes_to_send": 90,
        "messages_fetched": 3,
        "brokers_up": 3,
        "round_trip_p99_seconds": 0.002,
        "throttled_p99_seconds": 0,
    }


def test_a_client_that_tells_nothing_any_more_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, now = Shown(), [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    one, two = shown.statistics.of_a_client(), shown.statistics.of_a_client()
    one(text(msg_cnt=4))
    now[0] += 2.0
    two(text(msg_cnt=5))
    assert shown.gauges["messages_to_send"] == 9
    now[0] += 2.0
    two(text(msg_cnt=5))
    assert shown.gauges["messages_to_send"] == 5


def test_they_can_be_turned_off() -> None:
    assert KafkaOptions.from_url("kafka://h/x?statistics=0").statistics == 0


@pytest.mark.timeout(60)
async def test_a_bus_shows_them(url_with: Callable[[str], str]) -> None:
    async with MessageBus(url_with("statistics=0.2")) as bus:
        await bus.publish("orders", 1)
        await eventually(lambda: bus.metrics().transport_state.get("brokers_up") == 1, "a broker to be up")
        before = bus.metrics().transport["bytes_sent"]
        await bus.publish("orders", "x" * 100_000)
        await eventually(lambda: bus.metrics().transport["bytes_sent"] > before + 100_000, "it to be counted")
        assert 0 < bus.metrics().transport_state["round_trip_p99_seconds"] < 60
