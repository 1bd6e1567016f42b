"""A group that is given another position, or none, and one again, while it reads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

from neuralcore import Message, MessageBus, Retention
from neuralcore.messaging.subscription import Subscription
from neuralcore_transports.kafka.registry import Attached, Forgotten
from tests.servers.kafka_cluster import KafkaCluster
from tests.transports.clients import eventually

pytestmark = pytest.mark.timeout(90)

MANY = 30
WAIT = 20.0


@pytest.fixture
async def bus(url_with: Callable[[str], str]) -> AsyncIterator[MessageBus]:
    async with MessageBus(url_with("lease=6&partitions=1")) as bus:
        bus.create_channel("jobs", retention=Retention(count=1000))
        yield bus


class Seen:
    def __init__(self) -> None:
        self.numbers: list[int] = []

    async def __call__(self, message: Message) -> None:
        self.numbers.append(message.payload)

    async def until(self, *numbers: int) -> None:
        """These are the last ones."""
        wanted = list(numbers)
        await eventually(lambda: self.numbers[-len(wanted) :] == wanted, f"the last to be {wanted}", WAIT)


async def reading(bus: MessageBus) -> tuple[Subscription, Seen]:
    seen = Seen()
    subscription = bus.subscribe("jobs", seen, group="g")
    await subscription.ready()
    return subscription, seen


async def test_of_several_seeks_the_last_one_counts(bus: MessageBus) -> None:
    """Most come while another is under way: whoever reads would never look again."""
    subscription, seen = await reading(bus)
    ids = [await bus.publish("jobs", number) for number in range(MANY)]
    await seen.until(*range(MANY))
    stored = list(range(MANY))
    (member,) = bus._link.transport.members
    for last in (10, 3, 25):
        member._session._poller.order(partial(time.sleep, 0.5))  # so that all of them come meanwhile
        await asyncio.gather(*(subscription.seek(ids[at]) for at in (5, 20, 1)))
        await subscription.seek(ids[last])
        await seen.until(*stored[last:])
        stored.append(100 + last)
        await bus.publish("jobs", 100 + last)
        await seen.until(100 + last)


async def test_a_group_that_is_forgotten_and_attached_again_reads_on(bus: MessageBus) -> None:
    """Both are heard of at once: its topics are the same as before, and nothing is dealt out anew."""
    _, seen = await reading(bus)
    await bus.publish("jobs", 1)
    await seen.until(1)
    registrar = bus._link.transport.registrar
    for number in (2, 3):
        appending = asyncio.ensure_future(registrar.append(Forgotten("g"), Attached("g", "jobs", [[0]], [[0]])))
        await asyncio.sleep(0)
        time.sleep(1.0)  # noqa: ASYNC251 - so that the loop finds both when it looks again
        await appending
        await bus.publish("jobs", number)
        await seen.until(*range(1, number + 1))


async def test_a_position_that_moves_while_the_partition_is_looked_for_is_followed(bus: MessageBus) -> None:
    """What goes on from where something still is loses nothing."""
    subscription, seen = await reading(bus)
    for number in range(5):
        await bus.publish("jobs", number)
    await seen.until(*range(5))
    transport = bus._link.transport
    (member,) = transport.members
    (partition,) = member.owned
    member._session._poller.order(lambda: member._session._find(partition))
    await bus.publish("jobs", 5)
    await seen.until(5)
    assert seen.numbers == list(range(6))
    assert not bus.metrics().transport.get("data_lost")
    await subscription.unsubscribe()


async def test_offsets_that_the_broker_s_tools_reset_are_followed(
    kafka_broker: KafkaCluster, prefix: str, url_with: Callable[[str], str]
) -> None:
    """As ``kafka-consumer-groups --reset-offsets`` does it: a commit without metadata, while nobody is in the group."""
    url = url_with("lease=6&partitions=1")
    async with MessageBus(url) as bus:
        bus.create_channel("jobs", retention=Retention(count=1000))
        _, seen = await reading(bus)
        for number in range(5):
            await bus.publish("jobs", number)
        await seen.until(*range(5))
    group, topic = f"{prefix}.g", f"{prefix}.jobs"
    reset = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 2)])
    kafka_broker.admin().alter_consumer_group_offsets([reset])[group].result(WAIT)
    async with MessageBus(url) as bus:
        _, seen = await reading(bus)
        await seen.until(2, 3, 4)
        assert seen.numbers == [2, 3, 4]
