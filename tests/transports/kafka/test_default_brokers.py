"""Brokers as they are when nobody has configured them: those of the other tests are quicker, and make no topics."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from neuralcore import MessageBus
from neuralcore_transports.kafka.errors import KafkaRefused
from tests.servers.kafka_cluster import KafkaCluster
from tests.transports.kafka.all_of_it import AllOfIt

pytestmark = pytest.mark.timeout(150)

DEFAULTS = {
    "auto.create.topics.enable": "true",
    "broker.heartbeat.interval.ms": "2000",
    "broker.session.timeout.ms": "9000",
    "group.initial.rebalance.delay.ms": "3000",
    "group.min.session.timeout.ms": "6000",
    "offsets.topic.num.partitions": "50",
    "transaction.state.log.num.partitions": "50",
}


@pytest.fixture
def kafka(start_kafka: Callable[..., KafkaCluster]) -> KafkaCluster:
    return start_kafka(options=DEFAULTS)


async def test_a_bus_works_with_them(kafka: KafkaCluster) -> None:
    bus = MessageBus(f"kafka://{kafka.bootstrap}/nc")
    all_of_it = AllOfIt(bus)
    async with bus:
        await all_of_it.works()
    topics = kafka.admin().list_topics(timeout=20).topics
    ours = {name: len(topic.partitions) for name, topic in topics.items() if name.startswith("nc.")}
    assert ours == {
        "nc._inboxes": 8,
        "nc._registry": 1,
        "nc.bills": 8,
        "nc.news": 8,
        "nc.orders": 8,
        "nc.__dlq.orders": 1,
    }


async def test_a_lease_that_they_do_not_allow_is_told(kafka: KafkaCluster) -> None:
    bus = MessageBus(f"kafka://{kafka.bootstrap}/nc?lease=3")
    bus.subscribe("orders", print, group="g")
    with pytest.raises(KafkaRefused, match=r"Invalid session timeout; lease= has to be between"):
        await bus.start()
