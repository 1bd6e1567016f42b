"""An application's rows and the bus's messages in one transaction."""
# ruff: noqa: PT012 - the whole block is what is undone

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

import pytest

from neuralcore import Message, MessageBus, Middleware
from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.errors import AlreadySettled, ChannelFull, LeaseLost, TransportError, Unsupported
from neuralcore.messaging.retry import RetryPolicy


@pytest.fixture
def url(tmp_path):
    return f"sqlite://{tmp_path}/app.db?lease=1"


@pytest.fixture
async def bus(url):
    async with MessageBus(url, retry=RetryPolicy(base=0.01)) as bus:
        async with bus.connection() as db:
            await db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT UNIQUE)")
        yield bus


async def rows(bus):
    async with bus.connection() as db:
        return [item for (item,) in await db.execute_fetchall("SELECT item FROM orders ORDER BY id")]


async def stored(bus):
    return {name: stats.stored for name, stats in (await bus._link.transport.stats()).items() if stats.stored}


async def until(look, wanted):
    for _ in range(1000):
        if await look() == wanted:
            return
        await asyncio.sleep(0.01)
    assert await look() == wanted


class TestOutbox:
    async def test_rows_and_messages_are_committed_together(self, bus):
        async with bus.connection() as db, bus.transaction(db) as tx:
            await db.execute("INSERT INTO orders (item) VALUES ('tea')")
            id = await tx.publish("orders.new", {"item": "tea"}, key="tea")
            assert len(id) == 32
            assert await rows(bus) == []
            assert await stored(bus) == {}
        assert await rows(bus) == ["tea"]
        assert await stored(bus) == {"orders.new": 1}

    async def test_or_not_at_all(self, bus):
        with pytest.raises(ZeroDivisionError):
            async with bus.connection() as db, bus.transaction(db) as tx:
                await db.execute("INSERT INTO orders (item) VALUES ('tea')")
                await tx.publish("orders.new", 1)
                raise ZeroDivisionError
        assert await rows(bus) == []
        assert await stored(bus) == {}

    async def test_a_consumer_gets_it_at_once_after_the_commit(self, bus):
        got = asyncio.Queue()

        @bus.subscribe("orders.*", group="g")
        async def handle(item: str):
            await got.put(item)

        async with bus.connection() as db, bus.transaction(db) as tx:
            await tx.publish("orders.new", "tea")
            await asyncio.sleep(0.1)
            assert got.empty()
        assert await asyncio.wait_for(got.get(), 5) == "tea"

    async def test_what_is_known_is_a_duplicate_inside_it_too(self, bus):
        await bus.publish("orders.new", 1, idempotency_key="k")
        async with bus.connection() as db, bus.transaction(db) as tx:
            await tx.publish("orders.new", 1, idempotency_key="k")
        assert await stored(bus) == {"orders.new": 1}

    async def test_a_full_channel_raises_and_undoes_it(self, bus):
        bus.create_channel(ChannelConfig("small", capacity=1))
        with pytest.raises(ChannelFull):
            async with bus.connection() as db, bus.transaction(db) as tx:
                await db.execute("INSERT INTO orders (item) VALUES ('tea')")
                await tx.publish("small", 1)
                await tx.publish("small", 2)
        assert await rows(bus) == []
        assert await stored(bus) == {}

    async def test_a_statement_that_fails_undoes_it(self, bus):
        with pytest.raises(sqlite3.IntegrityError):
            async with bus.connection() as db, bus.transaction(db) as tx:
                await tx.publish("orders.new", 1)
                await db.execute("INSERT INTO orders (item) VALUES ('tea')")
                await db.execute("INSERT INTO orders (item) VALUES ('tea')")
        assert await stored(bus) == {}

    async def test_two_on_one_connection_take_turns(self, bus):
        async with bus.connection() as db:

            async def one(n):
                async with bus.transaction(db) as tx:
                    await db.execute("INSERT INTO orders (item) VALUES (?)", [str(n)])
                    await asyncio.sleep(0)
                    await tx.publish("orders.new", n)

            await asyncio.gather(*[one(n) for n in range(10)])
        assert len(await rows(bus)) == 10
        assert await stored(bus) == {"orders.new": 10}

    async def test_ending_it_inside_the_block_is_an_error(self, bus):
        with pytest.raises(TransportError, match="ended inside its block"):
            async with bus.connection() as db, bus.transaction(db):
                await db.execute("COMMIT")

    async def test_a_connection_of_somebody_else_is_refused(self, bus, tmp_path):
        other = MessageBus(f"sqlite://{tmp_path}/other.db")
        async with other, other.connection() as db:
            with pytest.raises(TypeError, match=r"bus\.connection"):
                async with bus.transaction(db):
                    pass
        with pytest.raises(TypeError, match=r"bus\.connection"), closing(sqlite3.connect(":memory:")) as plain:
            async with bus.transaction(plain):
                pass

    async def test_middleware_sees_its_publishes(self, bus):
        seen = []

        class Watch(Middleware):
            async def publish(self, publication, proceed):
                seen.append(publication.channel)
                return await proceed(publication)

        bus.use(Watch())
        async with bus.connection() as db, bus.transaction(db) as tx:
            await tx.publish("orders.new", 1)
        assert seen == ["orders.new"]

    async def test_other_transports_say_so(self):
        async with MessageBus() as bus:
            with pytest.raises(Unsupported, match="sqlite"):
                bus.connection()
        async with MessageBus("memory://") as bus:
            with pytest.raises(Unsupported, match="sqlite"):
                bus.connection()


class TestInbox:
    async def test_rows_and_the_settlement_are_one_effect(self, bus):
        attempts = []

        @bus.subscribe("orders.new", group="g")
        async def handle(item: str, message: Message):
            attempts.append(message.attempt)
            async with bus.connection() as db, message.transaction(db) as tx:
                await db.execute("INSERT INTO orders (item) VALUES (?)", [item])
                await tx.publish("orders.done", item)
                if message.attempt < 3:
                    raise ConnectionError("not yet")
            with pytest.raises(AlreadySettled):
                await message.ack()

        await bus.publish("orders.new", "tea")
        await until(lambda: stored(bus), {"orders.done": 1})
        assert attempts == [1, 2, 3]
        assert await rows(bus) == ["tea"]

    async def test_a_lost_lease_undoes_the_rows(self, bus, url):
        began, lost = asyncio.Event(), asyncio.Event()
        errors = []

        @bus.subscribe("orders.new", group="g")
        async def handle(message):
            if began.is_set():
                return
            began.set()
            await lost.wait()
            try:
                async with bus.connection() as db, message.transaction(db):
                    await db.execute("INSERT INTO orders (item) VALUES ('late')")
            except LeaseLost as error:
                errors.append(error)
                raise

        await bus.publish("orders.new", 1)
        await asyncio.wait_for(began.wait(), 5)
        # As if the process had been taken for dead.
        await bus._link.transport.run(lambda store, now: store.give_up(bus._link.transport.owner, now))
        lost.set()
        await until(lambda: stored(bus), {})
        assert len(errors) == 1
        assert await rows(bus) == []
        stats = await bus._link.transport.stats()
        assert stats["orders.new"].rejected_settlements == 1

    async def test_after_it_nothing_is_left_to_settle(self, bus):
        done = asyncio.Event()

        @bus.subscribe("orders.new", group="g")
        async def handle(message):
            async with bus.connection() as db, message.transaction(db):
                pass
            with pytest.raises(AlreadySettled):
                async with bus.connection() as db, message.transaction(db):
                    pass
            done.set()

        await bus.publish("orders.new", 1)
        await asyncio.wait_for(done.wait(), 5)
        report = await bus.close()
        assert report.abandoned == 0

    async def test_in_process_there_is_no_database(self):
        errors = asyncio.Queue()
        async with MessageBus() as bus:

            @bus.subscribe("a")
            async def handle(message):
                try:
                    message.transaction(None)
                except Unsupported as error:
                    await errors.put(str(error))

            await bus.publish("a", 1)
            assert "sqlite" in await asyncio.wait_for(errors.get(), 5)
