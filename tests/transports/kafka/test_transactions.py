"""Publishes, and the end of a message, in one of Kafka's transactions."""
# ruff: noqa: PT012 - the whole block is what does not happen

from __future__ import annotations

import asyncio
from concurrent.futures import Future

import pytest
from confluent_kafka import KafkaError, KafkaException

from neuralcore import Message, MessageBus, Retention
from neuralcore.messaging.codec import Codec
from neuralcore.messaging.errors import (
    Closed,
    InvalidChannelName,
    LeaseLost,
    NotStored,
    PublishError,
    TransactionUnknown,
    Unsupported,
)
from neuralcore_transports.kafka.clients import Clients
from neuralcore_transports.kafka.session import Session
from neuralcore_transports.kafka.transactor import Transactor
from tests.transports.clients import eventually

pytestmark = pytest.mark.timeout(90)

WAIT = 20.0
LOST_ANSWER = KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer"))


@pytest.fixture
def url(url_with):
    return url_with("lease=6&partitions=1&upkeep=0.5")


@pytest.fixture
async def bus(url):
    async with MessageBus(url) as bus:
        yield bus


@pytest.fixture
def commits(monkeypatch):
    """How many jobs' records each transaction had."""
    found = []
    real = Transactor.commit

    def counted(self, records, settled=None):
        real(self, records, settled)
        found.append(len(records))

    monkeypatch.setattr(Transactor, "commit", counted)
    return found


async def kept(bus, channel):
    """The payloads that are in a channel, oldest first."""
    page = await bus._link.transport.browse(channel, "beginning", 1000)
    return [Codec().decode(each.content_type, each.body) for each in page.envelopes]


async def lag(bus, channel, group):
    return (await bus._link.transport.stats())[channel].lag[group]


class Producing:
    """A real producer, of which one call goes another way."""

    def __init__(self, real, **instead):
        self._real = real
        self._instead = instead

    def __getattr__(self, name):
        return self._instead.get(name) or getattr(self._real, name)


@pytest.fixture
def first_producer(monkeypatch):
    """``first_producer(commit_transaction=…)``: what the first one does instead; it is given the real one."""
    real = Clients.transactional

    def instead(**calls):
        made = []

        def make(self, name):
            producer = real(self, name)
            made.append(producer)
            if len(made) > 1:
                return producer
            return Producing(
                producer, **{name: lambda *given, call=call: call(producer, *given) for name, call in calls.items()}
            )

        monkeypatch.setattr(Clients, "transactional", make)
        return made

    return instead


class TestPublishing:
    async def test_those_that_end_meanwhile_go_together(self, bus, commits):
        async def one(number):
            async with bus.transaction() as tx:
                await tx.publish("a", number)
                await tx.publish("b", number)

        await one(0)
        await asyncio.gather(*(one(number) for number in range(1, 31)))
        assert commits[0] == 2
        assert sum(commits) == 62
        assert len(commits) <= 4, "a transaction takes long, so those that wait share the next"
        assert sorted(await kept(bus, "a")) == sorted(await kept(bus, "b")) == list(range(31))

    async def test_one_that_is_refused_does_not_keep_the_others(self, bus, kafka_broker, prefix):
        kafka_broker.create_topic(f"{prefix}.a", max_message_bytes="2000")

        async def one(payload):
            async with bus.transaction() as tx:
                await tx.publish("a", "beside it")
                await tx.publish("a", payload)

        results = await asyncio.gather(one("x" * 20_000), one("small"), one("also"), return_exceptions=True)
        assert isinstance(results[0], PublishError)
        assert results[1:] == [None, None]
        assert sorted(await kept(bus, "a")) == ["also", "beside it", "beside it", "small"]

    async def test_a_channel_that_cannot_be(self, bus):
        with pytest.raises(InvalidChannelName):
            async with bus.transaction() as tx:
                await tx.publish("good", 1)
                await tx.publish("o" * 250, 1)
        assert await kept(bus, "good") == []

    async def test_an_empty_one(self, bus, commits):
        async with bus.transaction():
            pass
        assert commits == []

    async def test_there_are_no_rows_to_go_with_it(self, bus):
        with pytest.raises(Unsupported, match="sqlite"):
            bus.connection()
        with pytest.raises(Unsupported):
            async with bus.transaction(object()):
                pass

    async def test_its_marks_are_nobodys_and_behind_nobody(self, bus, url):
        """What ends a transaction takes an offset. Nobody waits for it, and it counts for nothing."""
        got = asyncio.Queue()
        bus.subscribe("a", got.put, group="g")
        for number in range(3):
            async with bus.transaction() as tx:
                await tx.publish("a", number)
        assert [(await asyncio.wait_for(got.get(), WAIT)).payload for _ in range(3)] == [0, 1, 2]

        async def none_behind():
            return await lag(bus, "a", "g") == 0

        await eventually(none_behind, "nothing to be waiting", WAIT)

        async def all_deleted():
            return await kept(bus, "a") == []

        await eventually(all_deleted, "what is settled to be deleted", WAIT)

    async def test_a_page_that_ends_with_a_mark(self, bus):
        bus.create_channel("a", retention=Retention(count=10))
        with pytest.raises(ZeroDivisionError):
            async with bus.transaction() as tx:
                await tx.publish("a", 0)
                raise ZeroDivisionError
        async with bus.transaction() as tx:
            await tx.publish("a", 1)
        assert await kept(bus, "a") == [1]

    async def test_after_the_end(self, url):
        async with MessageBus(url) as bus:
            transaction = bus.transaction()
        with pytest.raises(Closed):
            async with transaction as tx:
                await tx.publish("a", 1)

    async def test_who_is_cancelled_learns_of_it_when_it_is_over(self, bus, monkeypatch):
        began = asyncio.Event()
        loop = asyncio.get_running_loop()
        real = Transactor.commit

        def slow(self, records, settled=None):
            loop.call_soon_threadsafe(began.set)
            real(self, records, settled)

        monkeypatch.setattr(Transactor, "commit", slow)

        async def one():
            async with bus.transaction() as tx:
                await tx.publish("a", 1)

        task = asyncio.create_task(one())
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await kept(bus, "a") == [1]


class TestInDoubt:
    """The answer to a commit is lost: the next producer of the same name ends the transaction, and it is looked for."""

    async def test_it_has_happened(self, bus, first_producer):
        def commit(producer, *given):
            producer.commit_transaction(*given)
            raise LOST_ANSWER

        made = first_producer(commit_transaction=commit)
        async with bus.transaction() as tx:
            await tx.publish("a", 1)
        assert len(made) == 2
        assert await kept(bus, "a") == [1]

    async def test_it_has_not(self, bus, first_producer):
        def commit(producer, *given):
            raise LOST_ANSWER

        first_producer(commit_transaction=commit)
        with pytest.raises(NotStored, match="no answer"):
            async with bus.transaction() as tx:
                await tx.publish("a", 1)
        async with bus.transaction() as tx:
            await tx.publish("a", 2)
        assert await kept(bus, "a") == [2]

    async def test_nobody_can_tell(self, bus, first_producer, monkeypatch):
        def commit(producer, *given):
            raise LOST_ANSWER

        first_producer(commit_transaction=commit)
        monkeypatch.setattr(Transactor, "_is_there", lambda self, place: None)
        with pytest.raises(TransactionUnknown, match="1 messages") as caught:
            async with bus.transaction() as tx:
                id = await tx.publish("a", 1)
        assert caught.value.ids == (id,)

    async def test_a_producer_that_is_left_with_an_open_transaction(self, bus, first_producer):
        """Undoing it fails: its successor does it."""

        def fail(producer, *given):
            raise KafkaException(KafkaError(KafkaError._STATE, "on purpose", False, False, True))

        made = first_producer(commit_transaction=fail, abort_transaction=fail)
        with pytest.raises(NotStored, match="on purpose"):
            async with bus.transaction() as tx:
                await tx.publish("a", 1)
        async with bus.transaction() as tx:
            await tx.publish("a", 2)
        assert len(made) == 2
        assert await kept(bus, "a") == [2]


class TestSettling:
    async def test_many_in_one(self, bus, commits):
        got = asyncio.Queue()
        bus.subscribe("out", got.put, group="g")

        @bus.subscribe("in", group="g", concurrency=50)
        async def work(message: Message) -> None:
            async with message.transaction() as tx:
                await tx.publish("out", message.payload)

        await bus.publish_many([("in", number) for number in range(200)])
        results = [(await asyncio.wait_for(got.get(), WAIT)).payload for _ in range(200)]
        assert sorted(results) == list(range(200))
        assert len(commits) < 50

        async def none_behind():
            return await lag(bus, "in", "g") == 0

        await eventually(none_behind, "the group to be at the end", WAIT)

    async def test_a_generation_that_is_over_is_refused_and_the_next_one_is_named(self, bus, first_producer):
        refused = []

        def send(producer, *given):
            if not refused:
                refused.append(given)
                raise KafkaException(KafkaError(KafkaError.ILLEGAL_GENERATION, "on purpose", False, False, True))
            producer.send_offsets_to_transaction(*given)

        first_producer(send_offsets_to_transaction=send)
        got, attempts = asyncio.Queue(), []
        bus.subscribe("out", got.put, group="g")

        @bus.subscribe("in", group="g")
        async def work(message: Message) -> None:
            attempts.append(message.attempt)
            async with message.transaction() as tx:
                await tx.publish("out", message.payload)

        await bus.publish("in", 1)
        assert (await asyncio.wait_for(got.get(), WAIT)).payload == 1
        assert len(refused) == len(attempts) == 1

    async def test_a_generation_that_leaves_everything_where_it_is(self, bus, url):
        """The client library may tell nobody of it; the transaction that names the one before finds out."""
        got, attempts = asyncio.Queue(), []
        bus.subscribe("out", got.put, group="results")

        @bus.subscribe("in", group="g")
        async def work(message: Message) -> None:
            attempts.append(message.attempt)
            async with message.transaction() as tx:
                await tx.publish("out", message.payload)

        await bus.publish("in", 1)
        assert (await asyncio.wait_for(got.get(), WAIT)).payload == 1
        (session,) = [each._session for each in bus._link.transport.members if each._group == "g"]
        before = session._standing
        async with MessageBus(url) as other:
            await other.subscribe("in", work, group="g").ready()
            await asyncio.sleep(3.0)  # both have heard of it within a quarter of the lease
            session._standing = before
            await bus.publish("in", 2)
            assert (await asyncio.wait_for(got.get(), WAIT)).payload == 2
        assert attempts == [1, 1]

    async def test_a_lost_lease_undoes_it(self, bus, monkeypatch):
        got, errors = asyncio.Queue(), []
        bus.subscribe("out", got.put, group="g")
        real = Session.settled

        def gone(self, offsets):
            if not errors:
                raise LeaseLost
            return real(self, offsets)

        monkeypatch.setattr(Session, "settled", gone)

        @bus.subscribe("in", group="g")
        async def work(message: Message) -> None:
            try:
                async with message.transaction() as tx:
                    await tx.publish("out", message.attempt)
            except LeaseLost as error:
                errors.append(error)
                raise

        await bus.publish("in", 1)
        assert (await asyncio.wait_for(got.get(), WAIT)).payload == 2
        assert len(errors) == 1
        assert got.empty()

    async def test_of_a_broadcast(self, bus):
        got = asyncio.Queue()
        bus.subscribe("out", got.put, group="g")

        async def work(message: Message) -> None:
            async with message.transaction() as tx:
                await tx.publish("out", message.payload)

        broadcast = bus.subscribe("in", work, broadcast=True)
        await broadcast.ready()
        await bus.publish("in", 1)
        assert (await asyncio.wait_for(got.get(), WAIT)).payload == 1
        await eventually(lambda: sum(each.acked for each in bus.metrics().subscriptions) == 2, "both to be settled")
        assert not any(each.in_flight for each in bus.metrics().subscriptions)

    @pytest.mark.parametrize("slow", ["send_offsets_to_transaction", "commit_transaction"])
    async def test_partitions_that_go_meanwhile(self, url_with, first_producer, slow):
        """The one that has a partition next waits for what the transaction does to it; a transaction that names an old
        generation is refused. Either way each message is done once.
        """
        url = url_with("lease=10&partitions=2&handover=0.5")
        loop, began = asyncio.get_running_loop(), asyncio.Event()

        def later(producer, *given):
            loop.call_soon_threadsafe(began.set)
            joined.result(WAIT)
            return getattr(producer, slow)(*given)

        first_producer(**{slow: later})
        joined: Future[None] = Future()
        results: list[tuple[int, int]] = []
        async with MessageBus(url) as first, MessageBus(url) as second, MessageBus(url) as third:
            third.subscribe("out", lambda message: results.append(tuple(message.payload)), group="g")

            async def work(message: Message) -> None:
                async with message.transaction() as tx:
                    await tx.publish("out", [message.payload, message.attempt])

            first.subscribe("in", work, group="g", concurrency=10)
            await third.publish_many([("in", number) for number in range(10)])
            await asyncio.wait_for(began.wait(), WAIT)
            second.subscribe("in", work, group="g", concurrency=10)
            try:
                await eventually(lambda: second._link.transport.members, "the other one to come")
                (member,) = second._link.transport.members
                if slow == "send_offsets_to_transaction":
                    await eventually(lambda: member.owned, "the other one to have its share", WAIT)
                else:
                    await asyncio.sleep(3.0)
                    assert not member.owned, "it waits for what the transaction does"
            finally:
                joined.set_result(None)
            await eventually(lambda: {number for number, _ in results} == set(range(10)), "all of them", WAIT)
            await asyncio.sleep(1.0)
            assert len(results) == 10, "each once"
