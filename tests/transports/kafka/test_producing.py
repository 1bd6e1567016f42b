"""Records are handed over, and their senders told; without a broker."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from neuralcore.messaging.errors import Closed
from neuralcore_transports.kafka import publisher as module
from neuralcore_transports.kafka.publisher import Outgoing, Publisher
from tests.transports.kafka.fakes import a_silence

RECORD = Outgoing("t", 0, b"", None, [])


class Stored:
    def offset(self) -> int:
        return 7


class Library:
    """A producer; ``poll`` and ``flush`` first raise what is in ``wrong``, as a callback would."""

    def __init__(self) -> None:
        self.room = 1000
        self.wrong: list[Exception] = []
        self._waiting: list[Callable[..., None]] = []
        self._lock = threading.Lock()

    def produce(self, *record: Any, on_delivery: Callable[..., None], headers: Any) -> None:
        with self._lock:
            if len(self._waiting) >= self.room:
                raise BufferError
            self._waiting.append(on_delivery)

    def __len__(self) -> int:
        return len(self._waiting)

    def poll(self, seconds: float) -> None:
        time.sleep(0.001)
        if self.wrong:
            raise self.wrong.pop()
        with self._lock:
            told, self._waiting = self._waiting, []
        for each in told:
            each(None, Stored())

    def flush(self, seconds: float) -> int:
        self.poll(seconds)
        return 0

    def purge(self) -> None:
        pass


class Clients:
    def __init__(self) -> None:
        self.made: list[Library] = []

    def producer(self) -> Library:
        self.made.append(Library())
        return self.made[-1]


@pytest.fixture
def clients() -> Clients:
    return Clients()


@pytest.fixture
async def publisher(clients: Clients) -> AsyncIterator[Publisher]:
    given: Any = clients
    made = Publisher(given, asyncio.get_running_loop().call_soon_threadsafe, name="test", silence=a_silence)
    yield made
    await asyncio.to_thread(made.close, 1.0)


async def send(publisher: Publisher, count: int = 1) -> list[int]:
    return [each.offset for each in await asyncio.wait_for(publisher.send([RECORD] * count), 5.0)]


async def test_who_sends_is_told(publisher: Publisher) -> None:
    assert await send(publisher, 2) == [7, 7]


async def test_a_callback_that_raises_stops_nothing(publisher: Publisher, clients: Clients) -> None:
    publisher.start()
    clients.made[0].wrong = [ValueError("on purpose") for _ in range(3)]
    assert await send(publisher) == [7]


async def test_nor_when_it_closes(publisher: Publisher, clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    await send(publisher)
    generation: Any = publisher._current

    def fail(seconds: float) -> int:
        raise ValueError("on purpose")

    monkeypatch.setattr(clients.made[0], "flush", fail)
    await asyncio.to_thread(publisher.close, 1.0)
    assert not generation.thread.is_alive()


async def test_after_the_end_nothing_is_made_and_nobody_waits(publisher: Publisher, clients: Clients) -> None:
    await send(publisher)
    await asyncio.to_thread(publisher.close, 1.0)
    with pytest.raises(Closed):
        await send(publisher)
    with pytest.raises(Closed):
        publisher.start()
    assert len(clients.made) == 1


async def test_who_waits_for_room_at_the_end_is_told(publisher: Publisher, clients: Clients) -> None:
    publisher.start()
    clients.made[0].room = 0
    sending = asyncio.ensure_future(publisher.send([RECORD] * 2))
    await asyncio.sleep(0.05)
    await asyncio.to_thread(publisher.close, 1.0)
    clients.made[0].room = 1000
    sent = await asyncio.wait_for(sending, 5.0)
    assert all(each.error is not None for each in sent)


async def test_the_thread_is_not_kept_busy_by_one_that_always_fails(
    publisher: Publisher, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROOM", 0.02)
    publisher.start()
    clients.made[0].wrong = [ValueError("on purpose") for _ in range(1000)]
    await asyncio.sleep(0.2)
    assert len(clients.made[0].wrong) > 980
    clients.made[0].wrong = []
