"""A process that stood still until others gave it up: what it makes before it knows belongs to nobody."""

import asyncio
import contextlib
from contextlib import closing

import pytest

from neuralcore import MessageBus
from neuralcore.messaging.errors import RequestTimeout
from neuralcore_transports.sqlite.care import check
from neuralcore_transports.sqlite.opening import connect
from neuralcore_transports.sqlite.store.moment import Limits, Moment
from neuralcore_transports.sqlite.store.store import Store
from neuralcore_transports.sqlite.store.transaction import Book


def give_up(path):
    """As another process does."""
    with closing(connect(path)) as connection:
        store = Store(Book(connection), Limits())
        for owner, _ in store.others(0):
            store.give_up(owner, Moment(1, 1))


async def test_a_broadcast_from_before_goes_on(tmp_path, caplog):
    path = tmp_path / "bus.db"
    async with MessageBus(f"sqlite://{path}?lease=1") as bus:
        got = asyncio.Queue()
        await bus.subscribe("news", got.put, broadcast=True).ready()
        give_up(path)
        for number in range(100):  # those that come while there is no broadcast are lost, which is told
            await bus.publish("news", number)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(got.get(), 0.1)
                break
        else:
            pytest.fail("nothing arrives any more")
        assert bus.metrics().transport["data_lost"] >= 1
        assert check(path).findings == []


async def test_a_process_that_was_given_up_makes_no_broadcast_of_nobody(tmp_path, caplog):
    path = tmp_path / "bus.db"
    async with MessageBus(f"sqlite://{path}?lease=1") as bus:
        give_up(path)
        got = asyncio.Queue()
        subscription = bus.subscribe("news", got.put, broadcast=True)
        await subscription.ready()
        await bus.publish("news", "here")
        assert (await asyncio.wait_for(got.get(), 10)).payload == "here"
        assert check(path).findings == []
    assert any("was given up" in record.message for record in caplog.records)


async def test_it_gets_an_inbox_that_is_its_own(tmp_path):
    path = tmp_path / "bus.db"
    async with MessageBus(f"sqlite://{path}?lease=1") as bus:

        @bus.subscribe("sums", group="adders")
        async def add(numbers: list[int]) -> int:
            return sum(numbers)

        await add.ready()
        give_up(path)
        for _ in range(10):  # a reply that comes while there is no inbox has nowhere to go
            with contextlib.suppress(RequestTimeout):
                assert await bus.request("sums", [1, 2], timeout=1) == 3
                break
        else:
            pytest.fail("no reply arrives any more")
        assert check(path).findings == []
