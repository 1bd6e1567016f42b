"""Starting, using too early or too late, and closing a bus."""

import asyncio
import inspect
from collections.abc import Callable

import pytest

from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.errors import BadHandler, BusError, Closed, LoopClosed, NotStarted, Unavailable
from neuralcore.messaging.middleware import Middleware
from neuralcore.messaging.transport import Runtime
from neuralcore.testing.memory import MemoryTransport


@pytest.mark.parametrize("method", ["publish", "publish_nowait", "publish_threadsafe"])
def test_publishing_before_start_says_so(method: str) -> None:
    bus = MessageBus()
    with pytest.raises(NotStarted, match="async with MessageBus"):
        getattr(bus, method)("a", 1)


async def test_requests_and_streams_before_start_say_so() -> None:
    bus = MessageBus()
    with pytest.raises(NotStarted):
        await bus.request("a", 1)
    with pytest.raises(NotStarted):
        bus.stream("a")


async def test_everything_after_close_says_closed() -> None:
    async with MessageBus() as bus:
        pass
    with pytest.raises(Closed):
        await bus.publish("a", 1)
    with pytest.raises(Closed):
        await bus.request("a", 1)
    with pytest.raises(Closed):
        bus.subscribe("a", print)
    with pytest.raises(Closed):
        await bus.start()


async def test_closing_twice_and_at_once_is_harmless() -> None:
    bus = MessageBus()
    await bus.start()
    first, second = await asyncio.gather(bus.close(), bus.close())
    assert first is second
    assert await bus.close() is first
    assert first.drained


async def test_starting_twice_is_harmless() -> None:
    async with MessageBus() as bus:
        await bus.start()
        assert await bus.publish("a", 1) is not None


async def test_a_bus_that_never_started_can_be_closed() -> None:
    bus = MessageBus()
    assert (await bus.close()).drained
    assert (await bus.close()).drained
    with pytest.raises(Closed):
        await bus.start()


async def test_a_start_that_fails_ends_what_had_begun_and_closes_the_bus() -> None:
    bus = MessageBus()
    first = bus.subscribe("n", print, group="g", capacity=None)
    bus.subscribe("n", print, group="g", capacity=1000)
    bus.create_channel("n", capacity=5)  # now the two do not agree any more
    with pytest.raises(BadHandler, match="must agree"):
        async with bus:
            raise AssertionError("not reached")
    assert not first.active
    assert asyncio.all_tasks() == {asyncio.current_task()}
    with pytest.raises(Closed):
        await bus.publish("n", 1)
    with pytest.raises(Closed):
        await bus.start()
    assert (await bus.close()).handled == 0


class Unreachable(MemoryTransport):
    closed = False

    async def open(self, runtime: Runtime) -> None:
        raise Unavailable("unreachable://")

    async def close(self) -> None:
        self.closed = True
        await super().close()


async def test_a_start_without_its_store_closes_the_transport() -> None:
    transport = Unreachable()
    with pytest.raises(Unavailable):
        async with MessageBus(transport):
            raise AssertionError("not reached")
    assert transport.closed
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_start_that_is_cancelled_closes_the_bus() -> None:
    entered = asyncio.Event()

    class Slow(MemoryTransport):
        async def open(self, runtime: Runtime) -> None:
            entered.set()
            await asyncio.Event().wait()

    bus = MessageBus(Slow())
    starting = asyncio.create_task(bus.start())
    await entered.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    with pytest.raises(Closed):
        await bus.start()


class Gated(MemoryTransport):
    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.opened = 0

    async def open(self, runtime: Runtime) -> None:
        self.opened += 1
        await self.gate.wait()
        await super().open(runtime)


async def test_starting_twice_at_once_starts_once() -> None:
    transport = Gated()
    bus = MessageBus(transport)
    starting = [asyncio.create_task(bus.start()) for _ in range(2)]
    await asyncio.sleep(0)
    transport.gate.set()
    await asyncio.gather(*starting)
    assert transport.opened == 1
    await bus.close()


async def test_a_bus_that_is_closed_while_it_starts_stays_closed() -> None:
    transport = Gated()
    bus = MessageBus(transport)
    starting = asyncio.create_task(bus.start())
    await asyncio.sleep(0)
    await bus.close()
    transport.gate.set()
    with pytest.raises(Closed):
        await starting
    with pytest.raises(Closed):
        await bus.publish("a", 1)
    await bus.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_bus_shows_its_name_and_where_in_its_life_it_is() -> None:
    bus = MessageBus(name="town")
    assert repr(bus) == "<MessageBus 'town' new>"
    async with bus:
        assert repr(bus) == "<MessageBus 'town' running>"
    assert repr(bus) == "<MessageBus 'town' closed>"


async def test_subscriptions_made_before_the_start_begin_with_it() -> None:
    bus = MessageBus()
    seen: list[int] = []

    @bus.subscribe("numbers")
    async def collect(number: int) -> None:
        seen.append(number)

    assert "not started" in repr(collect)
    async with bus:
        assert collect.active
        await bus.publish("numbers", 1)
    assert seen == [1]


@pytest.fixture
def left_behind() -> MessageBus:
    """A bus whose loop has ended without closing it."""
    bus = MessageBus()

    async def begin() -> None:
        await bus.start()
        bus.subscribe("a", collect)

    async def collect(message: object) -> None:
        pass

    asyncio.run(begin())
    return bus


USES: dict[str, Callable[[MessageBus], object]] = {
    "start": lambda bus: bus.start(),
    "close": lambda bus: bus.close(),
    "subscribe": lambda bus: bus.subscribe("b", print),
    "stream": lambda bus: bus.stream("b"),
    "create_channel": lambda bus: bus.create_channel("b"),
    "use": lambda bus: bus.use(Middleware()),
    "request": lambda bus: bus.request("a", 1),
    "publish": lambda bus: bus.publish("a", 1),
    "publish_nowait": lambda bus: bus.publish_nowait("a", 1),
    "publish_threadsafe": lambda bus: bus.publish_threadsafe("a", 1),
    "queue_size": lambda bus: bus.queue_size("a"),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_a_bus_left_behind_by_its_loop_says_so(
    left_behind: MessageBus, use: Callable[[MessageBus], object]
) -> None:
    with pytest.raises(LoopClosed, match="make a new one"):
        await driven(use(left_behind))


async def test_what_a_bus_left_behind_has_counted_can_still_be_read(left_behind: MessageBus) -> None:
    assert left_behind.metrics().acked == 0
    assert set(left_behind.channels()) == set()


async def driven(result: object) -> object:
    return await result if inspect.isawaitable(result) else result


async def test_close_drains_what_is_queued() -> None:
    seen: list[int] = []

    async def slow(number: int) -> None:
        await asyncio.sleep(0)
        seen.append(number)

    async with MessageBus() as bus:
        bus.subscribe("n", slow)
        await bus.publish_many([("n", number) for number in range(100)])
        report = await bus.close()
    assert seen == list(range(100))
    assert (report.drained, report.handled, report.abandoned) == (True, 100, 0)


async def test_close_without_draining_abandons_and_counts() -> None:
    started = asyncio.Event()

    async def stuck(message: object) -> None:
        started.set()
        await asyncio.Event().wait()

    async with MessageBus() as bus:
        bus.subscribe("n", stuck)
        await bus.publish_many([("n", number) for number in range(10)])
        await started.wait()
        report = await bus.close(drain=False)
    assert (report.drained, report.handled, report.abandoned) == (False, 0, 10)


async def test_while_closing_handlers_may_publish_and_others_may_not() -> None:
    seen: list[str] = []
    entered, leave = asyncio.Event(), asyncio.Event()

    async def first(message: object) -> None:
        entered.set()
        await leave.wait()
        await bus.publish("second", "from a handler")

    async def second(text: str) -> None:
        seen.append(text)

    bus = MessageBus()
    await bus.start()
    bus.subscribe("first", first)
    bus.subscribe("second", second)
    await bus.publish("first", None)
    await entered.wait()
    closing = asyncio.create_task(bus.close())
    await asyncio.sleep(0)
    with pytest.raises(Closed):
        await bus.publish("second", "from outside")
    leave.set()
    assert (await closing).drained
    assert seen == ["from a handler"]


async def test_close_inside_a_handler_is_refused() -> None:
    refused: list[BusError] = []

    async def handler(message: object) -> None:
        try:
            await bus.close()
        except BusError as error:
            refused.append(error)

    async with MessageBus() as bus:
        bus.subscribe("a", handler)
        await bus.publish("a", None)
    assert "task of its own" in str(refused[0])


async def test_a_request_that_waits_while_the_bus_closes_is_told() -> None:
    async def never(message: object) -> None:
        await asyncio.Event().wait()

    bus = MessageBus()
    await bus.start()
    bus.subscribe("q", never)
    waiting = asyncio.create_task(bus.request("q", None))
    await asyncio.sleep(0)
    await bus.close(drain=False)
    with pytest.raises(Closed):
        await waiting
