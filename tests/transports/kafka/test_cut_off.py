"""Clients that have lost all brokers, and would not find one again: others take their places."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import pytest

from neuralcore import Message, MessageBus
from neuralcore.messaging.errors import PublishUnknown, Unavailable
from neuralcore_transports.kafka import clients as module
from neuralcore_transports.kafka.silence import Silence
from neuralcore_transports.kafka.transport import KafkaTransport
from tests.servers.fenced import Fenced
from tests.servers.kafka_cluster import KafkaCluster
from tests.servers.ports import HOST, free_port
from tests.transports.clients import eventually

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    def silence(self: KafkaTransport, name: str) -> Silence:
        return Silence(name, self.clients.probe, 3.0, quiet=0.5)

    monkeypatch.setattr(KafkaTransport, "silence", silence)


class Lost:
    """The first client that is ``chosen`` by its settings knows of a broker only that is not there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self.made = 0

    def is_the_first(self, kind: str, chosen: Callable[[dict[str, Any]], bool]) -> None:
        make = getattr(module, kind)

        def made(settings: dict[str, Any], **more: Any) -> Any:
            if chosen({**settings, **more}):
                self.made += 1
                if self.made == 1:
                    settings = {**settings, "bootstrap.servers": f"{HOST}:{free_port()}"}
            return make(settings, **more)

        self._patch.setattr(module, kind, made)


def _is_a_reader(settings: dict[str, Any]) -> bool:
    return settings["logger"] is not module._silent and "enable.partition.eof" not in settings


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> Lost:
    return Lost(monkeypatch)


async def handles_what_it_publishes(url: str) -> None:
    found: set[int] = set()
    async with MessageBus(url) as bus:
        _gather(bus, found)
        for number in range(20):
            await bus.publish("orders", number)
        await eventually(lambda: len(found) == 20, "the messages", 30)


def _gather(bus: MessageBus, found: set[int]) -> None:
    async def handle(message: Message) -> None:
        found.add(message.payload)

    bus.subscribe("orders", handle, group="g")


async def test_a_member_that_finds_nobody_is_replaced(url_with: Callable[[str], str], lost: Lost) -> None:
    lost.is_the_first("Consumer", lambda settings: "max.poll.interval.ms" in settings)
    await handles_what_it_publishes(url_with("lease=3"))
    assert lost.made == 2


async def test_a_reader_that_finds_nobody_is_replaced_and_read_on(url_with: Callable[[str], str], lost: Lost) -> None:
    """What was published meanwhile is heard, and nothing twice."""
    found: list[int] = []
    bus = MessageBus(url_with(""))

    @bus.subscribe("orders", broadcast=True)
    async def handle(message: Message) -> None:
        found.append(message.payload)

    async with bus:
        await bus.publish("orders", 0)
        await eventually(lambda: found == [0], "the first message")
        lost.is_the_first("Consumer", _is_a_reader)
        poller = bus._link.transport.reader.poller  # type: ignore[attr-defined]
        poller.ask(lambda: setattr(poller, "client", poller._make()), 5.0)
        for number in range(1, 10):
            await bus.publish("orders", number)
        await eventually(lambda: len(found) == 10, "the messages", 30)
    assert sorted(found) == list(range(10))
    assert lost.made == 2


async def test_a_producer_that_finds_nobody_is_replaced(url_with: Callable[[str], str], lost: Lost) -> None:
    async with MessageBus(url_with("patience=2")) as bus:
        await bus.publish("orders", 1)
        lost.is_the_first("Producer", lambda settings: "transactional.id" not in settings)
        publisher = bus._link.transport.publisher  # type: ignore[attr-defined]
        publisher._leave(publisher._generation())
        with pytest.raises(PublishUnknown):
            await bus.publish("orders", 2)

        async def published() -> bool:
            await bus.publish("orders", 3)
            return True

        await eventually(published, "another producer", 30)
    assert lost.made == 2


async def test_an_administrator_that_finds_nobody_is_replaced(url_with: Callable[[str], str], lost: Lost) -> None:
    async with MessageBus(url_with("timeout=1")) as bus:
        await bus.publish("orders", 1)
        lost.is_the_first("AdminClient", lambda settings: True)
        transport = bus._link.transport
        transport.administration._made = None  # type: ignore[attr-defined]
        health = await transport.health()
        assert not health.ok

        async def healthy() -> bool:
            return (await transport.health()).ok

        await eventually(healthy, "another administrator", 30)
    assert lost.made == 2


async def test_in_an_outage_nobodys_place_is_taken(
    start_kafka: Callable[..., KafkaCluster], caplog: pytest.LogCaptureFixture
) -> None:
    """A handler keeps its lease, and a publish waits for as long as it may."""
    kafka = start_kafka(proxied=True)
    started, kept = asyncio.Event(), []

    async def handle(message: Message) -> None:
        if not started.is_set():
            started.set()
            await asyncio.sleep(12)
            kept.append(not message.lease_lost)

    bus = MessageBus(f"kafka://{kafka.bootstrap}/nc?lease=30&timeout=1&patience=30")
    bus.subscribe("orders", handle, group="g")
    async with bus:
        await bus.publish("orders", 1)
        await asyncio.wait_for(started.wait(), 20)
        kafka.proxies[0].partition()
        publishing = asyncio.create_task(bus.publish("orders", 2))
        await asyncio.sleep(8)
        kafka.proxies[0].heal()
        await asyncio.wait_for(publishing, 20)
        await eventually(lambda: kept == [True], "the handler", 20)
    assert "takes its place" not in caplog.text


async def test_who_is_answered_slowly_keeps_its_place(
    start_kafka: Callable[..., KafkaCluster], caplog: pytest.LogCaptureFixture
) -> None:
    kafka = start_kafka(proxied=True)
    async with MessageBus(f"kafka://{kafka.bootstrap}/nc?lease=10&timeout=10") as bus:
        found: set[int] = set()
        _gather(bus, found)
        await bus.publish("orders", 1)
        await eventually(lambda: found == {1}, "the first message", 20)
        kafka.proxies[0].delay(0.6)  # each way
        await asyncio.sleep(8)
        kafka.proxies[0].heal()
        await bus.publish("orders", 2)
        await eventually(lambda: found == {1, 2}, "the second message", 20)
    assert "takes its place" not in caplog.text


# As it happens

_AT_ONCE: Final = 4


@pytest.fixture
def fenced(start_kafka: Callable[..., KafkaCluster]) -> Iterator[tuple[KafkaCluster, Fenced]]:
    kafka = start_kafka(proxied=True)
    with Fenced(kafka.brokers[0].port) as fenced:
        kafka.proxies[0].target = HOST, fenced.port
        kafka.proxies[0].cut()
        yield kafka, fenced


@pytest.fixture
async def bus(fenced: tuple[KafkaCluster, Fenced]) -> AsyncIterator[MessageBus]:
    bus = MessageBus(f"kafka://{fenced[0].bootstrap}/nc?lease=2&timeout=3&patience=2&partitions=4")
    yield bus
    await bus.close()


async def test_a_broker_that_says_there_is_none_is_found_again(
    fenced: tuple[KafkaCluster, Fenced], bus: MessageBus
) -> None:
    """It stood still, under load, for longer than its controller waits, and says so to clients that have waited for it.
    A plain consumer of the client library reads nothing ever after; ours mostly does, and is replaced when it does not.
    """
    kafka, fence = fenced
    found: set[int] = set()
    _gather(bus, found)
    await bus.start()
    stored: set[int] = set()
    publishing = asyncio.gather(*(_publish_on(bus, stored, first) for first in range(_AT_ONCE)))
    await eventually(lambda: len(found) > 100, "the first messages", 20)
    kafka.brokers[0].pause()
    await asyncio.sleep(3.5)
    fence.fence()
    kafka.brokers[0].resume()
    await asyncio.sleep(0.5)
    fence.unfence()
    before = len(found)
    await eventually(lambda: len(found) > before + 100, "more messages", 40)
    publishing.cancel()
    with suppress(asyncio.CancelledError):
        await publishing
    await eventually(lambda: stored <= found, "the last messages", 20)
    assert fence.told


async def _publish_on(bus: MessageBus, stored: set[int], first: int) -> None:
    for number in itertools.count(first, _AT_ONCE):
        with suppress(PublishUnknown, Unavailable):
            await bus.publish("orders", number)
            stored.add(number)
        await asyncio.sleep(0.001)
