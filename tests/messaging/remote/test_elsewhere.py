"""Other threads and other loops, in real time."""

import asyncio
import threading

from neuralcore.messaging.bus import MessageBus
from neuralcore.testing.memory import MemoryStore, MemoryTransport

DEADLINE = 30


class Home:
    """A bus on a loop of its own thread."""

    def __init__(self, store=None):
        self.store = store or MemoryStore()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.bus = MessageBus(MemoryTransport(self.store))
        self.do(self.bus.start())

    def do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(DEADLINE)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.do(self.bus.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(DEADLINE)
        self.loop.close()


class Collected:
    def __init__(self, count):
        self.payloads = []
        self._count = count
        self._done = threading.Event()

    def __call__(self, message):
        self.payloads.append(message.payload)
        if len(self.payloads) == self._count:
            self._done.set()

    def wait(self):
        assert self._done.wait(DEADLINE), self.payloads
        return self.payloads


def subscribe(home, channel, handler, **options):
    async def do():
        await home.bus.subscribe(channel, handler, group="g", **options).ready()

    home.do(do())


def test_threads_without_a_loop_publish():
    with Home() as home:
        got = Collected(200)
        subscribe(home, "jobs", got, blocking=False)

        def publish(start):
            for number in range(start, start + 50):
                assert home.bus.publish_threadsafe("jobs", number).result(DEADLINE)

        threads = [threading.Thread(target=publish, args=(start,)) for start in range(0, 200, 50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert sorted(got.wait()) == list(range(200))


def test_another_loop_publishes_requests_and_pulls():
    with Home() as home:
        subscribe(home, "echo", lambda m: m.payload, blocking=False)

        async def elsewhere():
            ids = await home.bus.publish_many([("jobs", number) for number in range(20)])
            assert len(set(ids)) == 20
            answers = await asyncio.gather(*(home.bus.request("echo", n) for n in range(20)))
            stream = home.bus.stream("jobs", group="s")
            pulled = []
            async for message in stream:
                pulled.append(message.payload)
                await message.ack()
                if len(pulled) == 20:
                    break
            await stream.close()
            return answers, pulled

        answers, pulled = asyncio.run(elsewhere())
        assert answers == pulled == list(range(20))


def test_another_loop_handles_and_settles():
    with Home() as home:
        got, finished = [], threading.Event()

        async def elsewhere():
            done = asyncio.Event()

            async def handler(message):
                got.append((message.payload, threading.get_ident()))
                if message.attempt == 1 and message.payload == 0:
                    raise ValueError("once")
                await message.ack()
                if len(got) == 11:
                    done.set()

            subscription = home.bus.subscribe("jobs", handler, group="g", concurrency=3)
            await subscription.ready()
            for number in range(10):
                await home.bus.publish("jobs", number)
            await asyncio.wait_for(done.wait(), DEADLINE)
            await subscription.unsubscribe()
            finished.set()

        thread = threading.Thread(target=asyncio.run, args=(elsewhere(),))
        thread.start()
        assert finished.wait(DEADLINE)
        thread.join(DEADLINE)
        assert sorted(payload for payload, _ in got) == [0, 0, *range(1, 10)]
        assert {ident for _, ident in got} == {thread.ident}


def test_plain_functions_run_in_threads_and_the_bus_settles_for_them():
    with Home() as home:
        got = Collected(20)
        subscribe(home, "jobs", got, concurrency=4)
        home.do(home.bus.publish_many([("jobs", number) for number in range(20)]))
        assert sorted(got.wait()) == list(range(20))


def test_two_buses_in_two_threads_share_a_store():
    store = MemoryStore()
    with Home(store) as one, Home(store) as two:
        got = Collected(100)
        subscribe(one, "jobs", got, blocking=False)
        subscribe(two, "jobs", got, blocking=False)
        for number in range(50):
            one.bus.publish_threadsafe("jobs", number)
            two.bus.publish_threadsafe("jobs", number + 50)
        assert sorted(got.wait()) == list(range(100))
