"""The asynchronous shell: waiting, waking, dying, in virtual time."""

import asyncio
import threading

import pytest

from neuralcore.messaging.errors import Closed, NotStarted, TransportError, Unavailable, UnknownScheme
from neuralcore.messaging.registry import transport_for
from neuralcore.messaging.transport import Demand, Envelope, Group, Interest, Outcome, Settlement
from neuralcore.testing import virtual
from neuralcore.testing.memory import MemoryStore, MemoryTransport

EVERYTHING = {1: Demand(100)}


class Host:
    """What a bus gives its transport."""

    executor = None

    def __init__(self, name, clock):
        self.bus_id = name
        self.clock = clock
        self.events = []

    def count(self, name, amount=1):
        self.events.append((name, amount))

    def gauge(self, name, value):
        self.events.append((name, value))

    def lost(self, deliveries):
        self.events.append(("lost", [d.envelope.id for d in deliveries]))

    def revoking(self, deliveries, deadline_ns):
        self.events.append(("revoking", deliveries))

    def reconnected(self):
        self.events.append(("reconnected",))

    def data_lost(self, channel, detail):
        self.events.append(("data_lost", channel))

    def channels_changed(self):
        self.events.append(("channels_changed",))


async def client(store, name="A"):
    transport = MemoryTransport(store)
    host = Host(name, asyncio.get_running_loop().clock)
    await transport.open(host)
    return transport, host


async def reader(transport, pattern="jobs", group="g"):
    consumer = await transport.consume(Group(group))
    await consumer.update([Interest(id=1, pattern=pattern)])
    return consumer


def message(id, channel="jobs", **fields):
    return Envelope(id=id, channel=channel, body=b"", **fields)


def ids(deliveries):
    return [d.envelope.id for d in deliveries]


@virtual
async def test_a_fetch_waits_for_the_first_message_and_no_longer():
    loop = asyncio.get_running_loop()
    store = MemoryStore()
    (a, _), (b, _) = await client(store), await client(store, "B")
    fetching = asyncio.ensure_future((await reader(a)).fetch(EVERYTHING, 60))
    await asyncio.sleep(7)
    before = loop.time()
    await b.commit([message("1")])
    assert ids(await fetching) == ["1"]
    assert loop.time() == before


@virtual
async def test_a_fetch_ends_empty_at_its_timeout():
    loop = asyncio.get_running_loop()
    transport, _ = await client(MemoryStore())
    before = loop.time()
    assert await (await reader(transport)).fetch(EVERYTHING, 5) == []
    assert loop.time() - before == pytest.approx(5)


@virtual
async def test_a_fetch_returns_when_a_delay_ends():
    loop = asyncio.get_running_loop()
    transport, _ = await client(MemoryStore())
    consumer = await reader(transport)
    before = loop.time()
    await transport.commit([message("1", delay_ns=3 * 10**9)])
    assert ids(await consumer.fetch(EVERYTHING, 60)) == ["1"]
    assert loop.time() - before == pytest.approx(3)


@virtual
async def test_a_cancelled_fetch_loses_nothing():
    transport, _ = await client(MemoryStore())
    consumer = await reader(transport)
    fetching = asyncio.ensure_future(consumer.fetch(EVERYTHING, 60))
    await asyncio.sleep(1)
    await transport.commit([message("1")])
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert ids(await consumer.fetch(EVERYTHING, 0)) == ["1"]


@virtual
async def test_the_messages_of_a_killed_client_are_suspects_elsewhere_after_the_lease():
    loop = asyncio.get_running_loop()
    store = MemoryStore()
    (a, _), (b, _) = await client(store), await client(store, "B")
    mine, theirs = await reader(a), await reader(b)
    await a.commit([message("1")])
    await mine.fetch(EVERYTHING, 0)
    before = loop.time()
    a.kill()
    with pytest.raises(Unavailable):
        await mine.fetch(EVERYTHING, 0)
    (delivery,) = await theirs.fetch(EVERYTHING, 60)
    assert delivery.suspect
    assert loop.time() - before == pytest.approx(10)


@virtual
async def test_a_frozen_client_learns_what_it_lost_when_it_thaws():
    store = MemoryStore()
    (a, host), (b, _) = await client(store), await client(store, "B")
    mine, theirs = await reader(a), await reader(b)
    await a.commit([message("1")])
    (delivery,) = await mine.fetch(EVERYTHING, 0)
    a.freeze()
    assert ids(await theirs.fetch(EVERYTHING, 60)) == ["1"]
    a.thaw()
    await asyncio.sleep(0)
    assert ("lost", ["1"]) in host.events
    result = await a.commit([], [Settlement(delivery, Outcome.ACK)])
    assert [s.value for s in result.settled] == ["lease_lost"]


@virtual
async def test_a_broadcast_that_was_forgotten_is_made_again_and_said_to_have_lost_data():
    store = MemoryStore(session_ttl=20)
    (transport, host), (other, _) = await client(store), await client(store, "B")
    consumer = await reader(transport, group=None)
    transport.freeze()
    await asyncio.sleep(20)
    await other.commit([message("missed")])
    transport.thaw()
    assert await consumer.fetch(EVERYTHING, 0) == []
    assert ("data_lost", "jobs") in host.events
    await transport.commit([message("next")])
    assert ids(await consumer.fetch(EVERYTHING, 0)) == ["next"]


@virtual
async def test_an_inbox_wakes_its_reader_and_ends():
    store = MemoryStore()
    (a, _), (b, _) = await client(store), await client(store, "B")
    inbox = await a.inbox()
    fetching = asyncio.ensure_future(inbox.fetch(60))
    await asyncio.sleep(1)
    await b.commit([message("reply", inbox.address)])
    assert [e.id for e in await fetching] == ["reply"]
    await inbox.close()
    assert [s.value for s in (await b.commit([message("late", inbox.address)])).published] == ["dropped"]


@virtual
async def test_new_channels_are_announced_to_every_client():
    store = MemoryStore()
    (a, _), (_, host) = await client(store), await client(store, "B")
    await a.commit([message("1", "fresh")])
    await asyncio.sleep(0)
    assert host.events == [("channels_changed",)]


@virtual
async def test_closing_gives_back_what_was_fetched_and_twice_is_harmless():
    store = MemoryStore()
    (a, _), (b, _) = await client(store), await client(store, "B")
    mine, theirs = await reader(a), await reader(b)
    await a.commit([message("1")])
    await mine.fetch(EVERYTHING, 0)
    await a.close()
    await a.close()
    await mine.close()
    (delivery,) = await theirs.fetch(EVERYTHING, 0)
    assert (delivery.attempt, delivery.suspect) == (1, False)
    with pytest.raises(Closed):
        await a.commit([message("2")])
    assert not (await a.health()).ok


@virtual
async def test_before_it_is_open_it_says_so():
    with pytest.raises(NotStarted):
        await MemoryTransport().commit([message("1")])


def test_clients_in_other_threads_share_a_store_and_wake_each_other():
    from neuralcore._core import Clock

    store, ready, got = MemoryStore(), threading.Event(), []

    async def consume():
        transport = MemoryTransport(store)
        await transport.open(Host("B", Clock()))
        consumer = await reader(transport)
        ready.set()
        while len(got) < 100:
            got.extend(ids(await consumer.fetch(EVERYTHING, 30)))
        await transport.close()

    async def publish():
        transport = MemoryTransport(store)
        await transport.open(Host("A", Clock()))
        for number in range(100):
            await transport.commit([message(str(number))])
        await transport.close()

    thread = threading.Thread(target=asyncio.run, args=(consume(),))
    thread.start()
    assert ready.wait(30)
    asyncio.run(publish())
    thread.join(30)
    assert got == [str(number) for number in range(100)]


def test_a_url_names_a_store():
    one, two = transport_for("memory://shared?lease=3"), transport_for("memory://shared")
    assert isinstance(one, MemoryTransport)
    assert one.store is two.store
    assert transport_for("memory://").store is not transport_for("memory://").store


@pytest.mark.parametrize("url", ["memory://x?lease=soon", "memory://x?leese=3"])
def test_a_wrong_option_is_an_error(url):
    with pytest.raises(TransportError, match="memory:// "):
        transport_for(url)


def test_the_scheme_is_registered():
    with pytest.raises(UnknownScheme, match="memory"):
        transport_for("memorandum://")
