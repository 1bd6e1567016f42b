"""What brokers have to allow a bus, as docs/kafka.md lists it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from neuralcore import Message, MessageBus
from neuralcore_transports.kafka.errors import KafkaRefused
from neuralcore_transports.kafka.silence import Silence
from neuralcore_transports.kafka.transport import KafkaTransport
from tests.servers.kafka_cluster import KafkaCluster
from tests.transports.clients import eventually
from tests.transports.kafka.all_of_it import AllOfIt

pytestmark = pytest.mark.timeout(120)

KINDS = {"topics": "TOPIC", "groups": "GROUP", "transactional ids": "TRANSACTIONAL_ID"}
PAGE = Path(__file__).parents[3] / "docs" / "kafka.md"
WAIT = 30.0


def listed() -> dict[str, list[str]]:
    section = PAGE.read_text(encoding="utf-8").partition("\n## Rights\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([a-z ]+) \| ([A-Z][a-z]+(?:, [A-Z][a-z]+)*) \|$", section, re.MULTILINE)
    return {KINDS[on]: operations.upper().split(", ") for on, operations in rows}


RIGHTS = listed()


@pytest.fixture
def kafka(start_kafka: Callable[..., KafkaCluster]) -> KafkaCluster:
    return start_kafka(
        users={"root": "r", "ada": "a"},
        options={
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:root;User:ANONYMOUS",
        },
    )


def allow(kafka: KafkaCluster, rights: dict[str, list[str]]) -> None:
    from confluent_kafka.admin import (
        AclBinding,
        AclOperation,
        AclPermissionType,
        ResourcePatternType,
        ResourceType,
    )

    bindings = [
        AclBinding(
            ResourceType[kind],
            "nc.",
            ResourcePatternType.PREFIXED,
            "User:ada",
            "*",
            AclOperation[operation],
            AclPermissionType.ALLOW,
        )
        for kind, operations in rights.items()
        for operation in operations
    ]
    for made in kafka.admin().create_acls(bindings).values():
        made.result(WAIT)


def without(kind: str, right: str) -> dict[str, list[str]]:
    return {each: [one for one in rights if (each, one) != (kind, right)] for each, rights in RIGHTS.items()}


def bus_of(kafka: KafkaCluster) -> MessageBus:
    login = "security.protocol=SASL_PLAINTEXT&sasl.mechanism=PLAIN"
    return MessageBus(f"kafka://ada:a@{kafka.bootstrap}/nc?{login}&partitions=2&upkeep=0.2&timeout=5")


async def is_refused(bus: MessageBus) -> None:
    bus.subscribe("orders", print, group="g")
    with pytest.raises(KafkaRefused, match="uthoriz"):
        await bus.start()


def test_they_are_listed() -> None:
    assert set(RIGHTS) == set(KINDS.values())


async def test_these_are_enough(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def hurried(self: KafkaTransport, name: str) -> Silence:
        return Silence(name, self.clients.probe, 5.0, quiet=0.2)

    monkeypatch.setattr(KafkaTransport, "silence", hurried)
    allow(kafka, RIGHTS)
    bus = bus_of(kafka)
    all_of_it = AllOfIt(bus)
    async with bus:
        await all_of_it.works()
        transport = bus._link.transport
        assert (await transport.health()).ok
        assert "orders" in await transport.stats()
        page = await transport.browse("news", "beginning", 10)
        assert [envelope.channel for envelope in page.envelopes] == ["news"]
        await asyncio.sleep(1.0)  # upkeep, and questions after brokers
        counts = bus.metrics().transport
    assert "uthoriz" not in caplog.text
    assert "takes its place" not in caplog.text
    assert "upkeep_failed" not in counts


async def test_a_group_that_may_not_be_joined_is_told(kafka: KafkaCluster) -> None:
    allow(kafka, without("GROUP", "READ"))
    await is_refused(bus_of(kafka))


@pytest.mark.parametrize("channels", [["orders"], ["orders", "bills"]])
async def test_a_group_that_may_not_even_be_found_is_told(kafka: KafkaCluster, channels: list[str]) -> None:
    """The library tells that once only, whatever is subscribed to later."""
    allow(kafka, {**RIGHTS, "GROUP": []})
    async with bus_of(kafka) as bus:
        for subscription in [bus.subscribe(channel, print, group="g") for channel in channels]:
            with pytest.raises(KafkaRefused, match="uthoriz"):
                await subscription.ready()


async def test_a_group_that_was_refused_is_joined_when_it_may_be(kafka: KafkaCluster) -> None:
    allow(kafka, {**RIGHTS, "GROUP": []})
    got: asyncio.Queue[Message] = asyncio.Queue()
    async with bus_of(kafka) as bus:

        async def subscribed() -> bool:
            subscription = bus.subscribe("orders", got.put, group="g")
            try:
                await subscription.ready()
            except KafkaRefused:
                await subscription.unsubscribe()
                return False
            return True

        for _ in range(2):
            assert not await subscribed()
        allow(kafka, {"GROUP": RIGHTS["GROUP"]})
        await eventually(subscribed, "the group", WAIT)
        await bus.publish("orders", "tea")
        assert (await asyncio.wait_for(got.get(), WAIT)).payload == "tea"


async def test_a_topic_that_may_not_be_read_is_told(kafka: KafkaCluster) -> None:
    allow(kafka, without("TOPIC", "READ"))
    await is_refused(bus_of(kafka))


async def test_a_topic_that_may_not_be_made_is_told(kafka: KafkaCluster) -> None:
    allow(kafka, without("TOPIC", "CREATE"))
    with pytest.raises(KafkaRefused, match="uthoriz"):
        async with bus_of(kafka) as bus:
            await bus.publish("orders", "tea")
