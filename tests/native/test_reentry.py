"""Python code that runs in the middle of the core's work: destructors, weak references, callbacks, other threads."""

import asyncio
import gc
import importlib
import random
import sys
import threading
import time
import warnings
import weakref

import pytest


class Path:
    """A publish path whose end sets off the collector."""

    def __call__(self, payload, **options):
        raise AssertionError("nobody publishes here")

    def __del__(self):
        gc.collect()


@pytest.fixture
def due(rig):
    """What the settler of the next mailbox does when it is told of a due time."""

    class Settler:
        def due(self, mailbox, monotonic_ns, /):
            due.call()

        def expired(self, message, /):
            pass

    def attached(**options):
        mailbox = rig.core.Mailbox(rig.clock, Settler(), **options)
        rig.router.attach("jobs", mailbox)
        return mailbox

    due = type("Due", (), {"call": staticmethod(lambda: None), "mailbox": staticmethod(attached)})
    return due


@pytest.mark.parametrize("freed_by", ["configure", "clear", "batch"])
async def test_of_two_publishers_that_get_their_slots_the_first_may_end_the_second(rig, due, freed_by):
    mailbox = due.mailbox(capacity=2)
    for number in range(2):
        rig.router.publish_nowait("jobs", number)
    waiting = [rig.router.publish("jobs", "later", delay=5.0) for _ in range(2)]

    def end_the_second():
        del waiting[1:]

    due.call = end_the_second
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        if freed_by == "configure":
            mailbox.configure(capacity=4)
        elif freed_by == "clear":
            mailbox.clear()
        else:
            pump = rig.pump(mailbox, lambda messages: None, batch=2)
            pump.send(None)
            pump.close()
    stats = mailbox.stats()
    assert len(waiting) == 1
    assert (stats.delayed, stats.waiting, stats.in_flight) == (2, 0, 0), "its slot was its own already"


def test_publishers_are_cancelled_in_threads_while_batches_end(rig):
    mailbox = rig.mailbox(capacity=8)
    stop = threading.Event()
    interval = sys.getswitchinterval()

    async def publish(seed):
        chance = random.Random(seed)
        while not stop.is_set():
            tasks = [asyncio.ensure_future(rig.router.publish("jobs", bytearray(10))) for _ in range(20)]
            await asyncio.sleep(0)
            for task in tasks:
                if chance.random() < 0.7:
                    task.cancel()
            await asyncio.wait(tasks, timeout=0.02)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def consume():
        async def handler(messages):
            await asyncio.sleep(0)

        task = rig.start(mailbox, handler, batch=8)
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            await asyncio.sleep(0.01)
        stop.set()
        await asyncio.to_thread(lambda: [thread.join() for thread in threads])
        mailbox.close()
        await task

    threads = [threading.Thread(target=asyncio.run, args=(publish(seed),)) for seed in range(2)]
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        asyncio.run(consume())
    finally:
        sys.setswitchinterval(interval)
    stats = mailbox.stats()
    assert stats.acked == stats.delivered > 0
    assert (stats.queued, stats.in_flight, stats.waiting) == (0, 0, 0)


async def test_a_pump_that_dies_unseen_ends_its_handler_whatever_that_raises(rig, monkeypatch):
    mailbox = rig.mailbox()
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda hooked: seen.append((type(hooked.exc_value), hooked.object)))

    async def handler(message):
        try:
            await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)

    pump = rig.pump(mailbox, handler)
    rig.router.publish_nowait("jobs", 1)
    pump.send(None)
    del pump
    assert [kind for kind, _ in seen] == [RuntimeError]
    seen.clear()
    assert (mailbox.depth(), mailbox.stats().in_flight) == (1, 0)


def test_who_hears_of_the_end_of_a_pump_may_publish(rig):
    mailbox = rig.mailbox()
    published = []

    async def rest():
        pump = rig.pump(mailbox, lambda message: None)
        pump.send(None)
        heard = weakref.ref(pump, lambda _: published.append(rig.router.publish_nowait("jobs", 1)))
        del pump
        return heard

    asyncio.run(rest())
    assert len(published) == mailbox.depth() == 1


async def test_a_settler_that_raises_does_not_disturb_the_other_mailboxes(rig, due, monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda hooked: seen.append(str(hooked.exc_value)))

    def fail():
        raise ValueError("not now")

    due.call = fail
    mailboxes = [due.mailbox(capacity=3), rig.mailbox()]
    await rig.router.publish("jobs", 1, delay=5.0)
    assert seen == ["not now"]
    assert [mailbox.stats().delayed for mailbox in mailboxes] == [1, 1]


async def test_a_route_may_end_while_the_next_one_is_looked_up(rig):
    mailbox = rig.mailbox()

    def items():
        name = str(b"a-b", "ascii")
        route = rig.core.Route(rig.router, name)
        rig.router.add(route)
        yield (name, 1)
        route.configure(priority=5, ttl_ns=None, path=Path())
        rig.router.remove(name)
        del route, name
        yield ("jobs", 2)

    assert len(await rig.router.publish_many(items())) == 2
    assert mailbox.take().payload == 2


async def test_cancelling_many_reaches_an_item_whose_iterator_cannot_be_thrown_into(rig):
    class Endless:
        def __await__(self):
            return iter([None] * 5)

    rig.router.add(rig.core.Route(rig.router, "slow", path=lambda payload, **options: Endless()))
    mailbox = rig.mailbox()
    publishing = asyncio.ensure_future(rig.router.publish_many([("slow", 1), ("jobs", 2)]))
    await asyncio.sleep(0)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    assert mailbox.depth() == 0


async def test_many_cannot_be_closed_from_inside(rig):
    class Closer:
        def __await__(self):
            many.close()
            yield

    rig.router.add(rig.core.Route(rig.router, "closer", path=lambda payload, **options: Closer()))
    many = rig.router.publish_many([("closer", 1)])
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the router's own error
        many.send(None)
    assert str(caught.value.detail[1][0]) == "publish_many is already executing"


async def test_an_idle_pump_of_a_closed_loop_can_be_stopped(rig):
    mailbox = rig.mailbox()
    handled = []

    def abandoned():
        loop = asyncio.new_event_loop()
        pump = rig.pump(mailbox, handled.append)

        async def begin():
            task = loop.create_task(pump)
            await asyncio.sleep(0)
            return task

        task = loop.run_until_complete(begin())
        loop.close()
        task._log_destroy_pending = False
        return pump, task

    pump, _task = await asyncio.to_thread(abandoned)
    task = rig.start(mailbox, handled.append)
    await asyncio.sleep(0)
    pump.stop()
    await rig.router.publish("jobs", 1)
    mailbox.close()
    await task
    assert len(handled) == 1


def test_messages_nest_to_any_depth(core):
    message = None
    for _ in range(300_000):
        message = core.Message("jobs", message, id="m")
    del message


def test_a_module_that_is_imported_again_shares_its_types(core, rig):
    mailbox = rig.mailbox()

    async def rest():
        task = rig.start(mailbox, lambda message: None)
        await asyncio.sleep(0)
        again = importlib.import_module("neuralcore._native")
        assert again is not core
        assert again.Pump is core.Pump
        await rig.router.publish("jobs", 1)
        mailbox.close()
        await task

    kept = sys.modules.pop("neuralcore._native")
    try:
        asyncio.run(rest())
    finally:
        sys.modules["neuralcore._native"] = kept
    assert mailbox.stats().acked == 1
