"""The collector says what ``bus.metrics()`` says, in Prometheus' words."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from neuralcore import Message, MessageBus, Priority, Reject
from neuralcore.testing import run, virtual, virtual_bus
from neuralcore_observability import BusCollector


def scrape(*buses: MessageBus) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    registry = CollectorRegistry()
    registry.register(BusCollector(*buses))
    text = generate_latest(registry).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


@virtual
async def test_counters_follow_the_bus() -> None:
    async with virtual_bus(name="shop") as bus:

        async def handle(message: Message) -> None:
            if message.payload == "bad":
                raise Reject("no")

        bus.subscribe("orders", handle, group="packers")
        for payload in ("good", "good", "bad"):
            await bus.publish("orders", payload)
        await bus.publish("nobody", 1)
        await asyncio.get_running_loop().idle()  # type: ignore[attr-defined]
        found = scrape(bus)
    labels = {"bus": "shop", "pattern": "orders", "group": "packers"}
    assert found[key("neuralcore_published_messages_total", bus="shop", channel="orders")] == 3
    assert found[key("neuralcore_unrouted_messages_total", bus="shop", channel="nobody")] == 1
    assert found[key("neuralcore_delivered_messages_total", **labels)] == 3
    assert found[key("neuralcore_dead_lettered_messages_total", **labels)] == 1
    assert found[key("neuralcore_in_flight_messages", **labels)] == 0
    assert found[key("neuralcore_late_replies_total", bus="shop")] == 0


@virtual
async def test_depth_is_told_per_priority() -> None:
    async with virtual_bus(name="shop") as bus, bus.stream("orders") as stream:
        await bus.publish("orders", 1, priority=Priority.CRITICAL)
        await bus.publish("orders", 2)
        await bus.publish("orders", 3)
        found = scrape(bus)
        async for message in stream:
            await message.ack()
            if message.payload == 3:
                break
    labels = {"bus": "shop", "pattern": "orders", "group": ""}
    assert found[key("neuralcore_queued_messages", **labels, priority="0")] == 1
    assert found[key("neuralcore_queued_messages", **labels, priority="50")] == 2


@virtual
async def test_histograms_are_cumulative_and_end_in_infinity() -> None:
    async with virtual_bus(name="shop") as bus:
        bus.subscribe("orders", lambda message: None, blocking=False)
        for i in range(1000):
            await bus.publish("orders", i)
        found, metrics = scrape(bus), bus.metrics()
    labels = {"bus": "shop", "channel": "orders"}
    name = "neuralcore_publish_duration_seconds"
    series = sorted((float(dict(label)["le"]), value) for (n, label), value in found.items() if n == f"{name}_bucket")
    assert [bound for bound, _ in series] == pytest.approx([*metrics.publish.bounds, float("inf")])
    assert [count for _, count in series] == sorted(count for _, count in series)
    total = found[key(f"{name}_count", **labels)]
    assert found[key(f"{name}_bucket", **labels, le="+Inf")] == total == metrics.publish.count > 0
    assert found[key(f"{name}_sum", **labels)] == pytest.approx(metrics.publish.sum_ns / 1e9)


@virtual
async def test_inboxes_are_one_series() -> None:
    async with virtual_bus(name="shop") as bus:
        bus.subscribe("prices", lambda message: 2.5, blocking=False)
        assert await bus.request("prices", "tea") == 2.5
        found = scrape(bus)
    channels = {dict(labels)["channel"] for _, labels in found if "channel" in dict(labels)}
    assert not [channel for channel in channels if channel.startswith("_inbox.")]


@virtual
async def test_subscribers_of_one_pattern_are_added_up() -> None:
    async with virtual_bus(name="shop") as bus:
        for _ in range(3):
            bus.subscribe("orders", lambda message: None, blocking=False, broadcast=True, capacity=10)
        found = scrape(bus)
    assert found[key("neuralcore_capacity_messages", bus="shop", pattern="orders", group="")] == 30


@virtual
async def test_several_buses_share_a_collector_by_name() -> None:
    async with virtual_bus(name="one") as one, virtual_bus(name="two") as two:
        await one.publish("orders", 1)
        found = scrape(one, two)
    assert key("neuralcore_unrouted_messages_total", bus="one", channel="orders") in found
    assert key("neuralcore_late_replies_total", bus="two") in found


def test_buses_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="different names"):
        BusCollector(MessageBus(), MessageBus())
    with pytest.raises(TypeError, match="at least one bus"):
        BusCollector()


def test_registering_reads_no_bus() -> None:
    class Unread(MessageBus):
        def metrics(self) -> None:  # type: ignore[override]
            raise AssertionError("read")

    async def main() -> None:
        CollectorRegistry().register(BusCollector(Unread()))

    run(main())


def test_described_and_collected_families_are_the_same() -> None:
    async def main() -> tuple[list[str], list[str]]:
        async with virtual_bus() as bus:
            bus.subscribe("orders", lambda message: None, blocking=False)
            await bus.publish("orders", 1)
            collector = BusCollector(bus)
            return [f.name for f in collector.describe()], [f.name for f in collector.collect()]

    described, collected = run(main())
    assert described == collected
    assert all(name.startswith("neuralcore_") for name in described)
