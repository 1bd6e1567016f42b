"""Any thread may publish, any loop may work: one router, many threads."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter

import pytest


@pytest.fixture(autouse=True)
def switch_often():
    """Threads take turns a hundred times as often as usual."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(interval)


def in_threads(*works):
    """Run them all at once; what one raises is raised here."""
    errors = []

    def guarded(work):
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


async def test_messages_from_a_plain_thread_are_handled_on_the_loop(rig, turns, soon):
    mailbox = rig.mailbox("jobs")
    handled = []
    all_there = asyncio.Event()

    async def handler(message):
        handled.append((message.payload, threading.current_thread()))
        if len(handled) == 10:
            all_there.set()

    task = rig.start(mailbox, handler)
    await turns()
    thread = threading.Thread(target=lambda: [rig.publish_nowait("jobs", number) for number in range(10)])
    thread.start()
    await soon(all_there.wait())
    thread.join()
    assert handled == [(number, threading.current_thread()) for number in range(10)]
    mailbox.close()
    await soon(task)


async def test_each_message_from_a_thread_wakes_an_idle_worker(rig, turns, soon):
    mailbox = rig.mailbox("jobs")
    arrived = asyncio.Queue()
    task = rig.start(mailbox, lambda message: arrived.put_nowait(message.payload))
    await turns()
    go = threading.Semaphore(0)

    def publisher():
        for number in range(50):
            go.acquire()
            rig.publish_nowait("jobs", number)

    thread = threading.Thread(target=publisher)
    thread.start()
    for number in range(50):
        go.release()
        assert await soon(arrived.get()) == number
        if number % 3:
            await turns()
    thread.join()
    mailbox.close()
    await soon(task)


@pytest.mark.parametrize("workers", [1, 3])
async def test_no_message_and_no_wake_up_is_lost_when_threads_publish(rig, workers, soon):
    mailbox = rig.mailbox("jobs", capacity=10**6)
    handled = Counter()
    last = {}
    done = asyncio.Event()
    expected = 4 * 1500

    async def handler(message):
        name, number = message.payload
        if workers == 1:
            assert last.get(name, -1) < number
        last[name] = number
        handled[name] += 1
        if number % 50 == 0:
            await asyncio.sleep(0)
        if sum(handled.values()) == expected:
            done.set()

    def publisher(name):
        for number in range(1500):
            rig.publish_nowait("jobs", (name, number))

    tasks = [rig.start(mailbox, handler) for _ in range(workers)]
    publishing = asyncio.to_thread(in_threads, *(lambda name=name: publisher(name) for name in range(4)))
    await asyncio.wait_for(asyncio.gather(publishing, done.wait()), 30)
    mailbox.close()
    await soon(asyncio.gather(*tasks))
    assert rig.failures == []
    assert handled == dict.fromkeys(range(4), 1500)
    assert mailbox.stats().acked == expected
    assert rig.route("jobs").stats().published == expected


def test_two_loops_in_two_threads_share_one_router(rig):
    mailbox, answers = rig.mailbox("there", capacity=20), rig.mailbox("back", capacity=20)
    count = 500
    got = []

    async def there():
        task = rig.start(mailbox, lambda message: rig.publish("back", message.payload * 2))
        await asyncio.wait_for(asyncio.wait([task]), 30)

    async def here():
        done = asyncio.Event()

        def handler(message):
            got.append(message.payload)
            if len(got) == count:
                done.set()

        task = rig.start(answers, handler)
        for number in range(count):
            await asyncio.wait_for(rig.publish("there", number), 30)
        await asyncio.wait_for(done.wait(), 30)
        mailbox.close()
        answers.close()
        await asyncio.wait_for(task, 30)

    in_threads(lambda: asyncio.run(there()), lambda: asyncio.run(here()))
    assert rig.failures == []
    assert got == [number * 2 for number in range(count)]


def test_workers_on_two_loops_share_one_mailbox(rig):
    mailbox = rig.mailbox("jobs", capacity=50)
    handled = []

    async def handler(message):
        await asyncio.sleep(0)
        handled.append(message.payload)

    async def work():
        tasks = [rig.start(mailbox, handler) for _ in range(2)]
        await asyncio.wait_for(asyncio.gather(*tasks), 30)

    async def produce():
        for number in range(1000):
            await asyncio.wait_for(rig.publish("jobs", number), 30)
        mailbox.close()

    in_threads(*(lambda: asyncio.run(work()) for _ in range(2)), lambda: asyncio.run(produce()))
    assert sorted(handled) == list(range(1000))


def test_publishers_that_wait_on_several_loops_all_get_their_turn(rig):
    mailbox = rig.mailbox("jobs", capacity=3)
    handled = []

    async def work():
        await asyncio.wait_for(rig.start(mailbox, lambda message: handled.append(message.payload)), 30)

    async def produce(name):
        await asyncio.wait_for(asyncio.gather(*(rig.publish("jobs", (name, number)) for number in range(200))), 30)

    def producers():
        in_threads(*(lambda name=name: asyncio.run(produce(name)) for name in range(3)))
        mailbox.close()

    in_threads(lambda: asyncio.run(work()), producers)
    assert sorted(handled) == [(name, number) for name in range(3) for number in range(200)]
    assert mailbox.stats().waiting == 0


def test_the_capacity_holds_whoever_publishes(rig, refused):
    mailbox = rig.mailbox("jobs", capacity=7)
    most = 0
    stop = threading.Event()
    refusals = []

    def publisher():
        for _ in range(2000):
            try:
                rig.publish_nowait("jobs", None)
            except refused as error:
                refusals.append(error.kind)

    def publishers():
        in_threads(publisher, publisher, publisher)
        stop.set()

    def taker():
        nonlocal most
        while not stop.is_set() or mailbox.depth():
            stats = mailbox.stats()
            most = max(most, stats.queued + stats.in_flight)
            message = mailbox.take()
            if message is not None:
                mailbox.ack(message)

    in_threads(publishers, taker)
    assert most <= 7
    assert set(refusals) <= {"full"}
    assert mailbox.stats().acked + len(refusals) == 6000
    stats = rig.route("jobs").stats()
    assert (stats.published, stats.refused) == (6000 - len(refusals), len(refusals))


def test_messages_are_conserved_whatever_threads_do_at_once(rig):
    mailbox = rig.mailbox("jobs", capacity=100, overflow="drop_old", hold_keys=False)
    published = []
    acked = []
    stop = threading.Event()

    def publisher(name):
        for number in range(800):
            key = f"k{number % 5}" if number % 3 else None
            published.append(
                rig.publish_nowait("jobs", number, key=key, priority=number % 4, delay=number % 7 == 0 or None)
            )

    def publishers():
        in_threads(*(lambda name=name: publisher(name) for name in range(3)))
        stop.set()

    def taker():
        while not stop.is_set() or mailbox.take_relaxed(-1):
            message = mailbox.take()
            if message is None:
                continue
            if message.payload % 5 == 0 and message.attempt < 3:
                mailbox.retry(message, 1000)
            elif message.payload % 7 == 1:
                mailbox.release(message)
                message = mailbox.take()
                if message is not None:
                    mailbox.ack(message)
                    acked.append(message.id)
            else:
                mailbox.ack(message)
                acked.append(message.id)

    def clearer():
        while not stop.is_set():
            rig.clock.advance(1_000_000)
            mailbox.promote()
            mailbox.depths()
            mailbox.stats()

    in_threads(publishers, taker, taker, clearer)
    stats = mailbox.stats()
    left = stats.queued + stats.parked + stats.delayed + stats.in_flight
    taken = sum(identity is not None for identity in published)
    assert stats.acked == len(acked) == len(set(acked))
    assert stats.in_flight == 0
    assert taken >= stats.acked + left
    assert len(mailbox.clear()) == left
    assert mailbox.stats().capacity == 100


def test_subscriptions_may_change_while_others_publish(rig):
    always = rig.mailbox("a.b", capacity=10**6)
    stop = threading.Event()

    def publisher():
        for number in range(1500):
            rig.publish_nowait("a.b", number)

    def publishers():
        in_threads(publisher, publisher)
        stop.set()

    def changer():
        while not stop.is_set():
            mailbox = rig.mailbox("a.*", "a.b", capacity=10**6)
            rig.router.match("a.b")
            rig.router.detach("a.*", mailbox)
            rig.router.detach("a.b", mailbox)

    in_threads(publishers, changer)
    assert always.stats().queued == 3000
    assert rig.router.match("a.b") == [always]


async def test_a_worker_can_be_stopped_from_another_thread(rig, turns, soon):
    pump = rig.pump(rig.mailbox("jobs"), lambda message: None)
    task = asyncio.get_running_loop().create_task(pump)
    await turns()
    thread = threading.Thread(target=pump.stop)
    thread.start()
    await soon(task)
    thread.join()


async def test_a_mailbox_can_be_closed_from_another_thread(rig, turns, soon):
    mailbox = rig.mailbox("jobs")
    tasks = [rig.start(mailbox, lambda message: None) for _ in range(3)]
    await turns()
    thread = threading.Thread(target=mailbox.close)
    thread.start()
    await soon(asyncio.gather(*tasks))
    thread.join()


async def test_room_made_in_another_thread_lets_a_publisher_in(rig, turns, soon):
    mailbox = rig.mailbox("jobs", capacity=1)
    await rig.publish("jobs", 1)
    waiting = asyncio.ensure_future(rig.publish("jobs", 2))
    await turns()
    thread = threading.Thread(target=lambda: mailbox.ack(mailbox.take()))
    thread.start()
    assert len(await soon(waiting)) == 32
    thread.join()


def test_outside_of_a_loop_a_publish_that_has_room_enters(rig, drain):
    mailbox = rig.mailbox("jobs")
    rig.publish("jobs", 1)
    assert drain(mailbox) == [1]


@pytest.mark.parametrize("moment", range(20, 260, 8))
def test_a_second_thread_may_come_at_any_time(rig, moment):
    mailbox = rig.mailbox("jobs", capacity=10**6)
    begun = threading.Event()
    taken = []

    def take():
        message = mailbox.take()
        if message is not None:
            mailbox.ack(message)
            taken.append(message.payload)
        return message

    def second():
        begun.wait()
        for number in range(300):
            rig.publish_nowait("jobs", ("second", number))

    thread = threading.Thread(target=second)
    thread.start()
    for number in range(300):
        if number == moment:
            begun.set()
        rig.publish("jobs", ("first", number))
        if number % 3 == 0:
            take()
    thread.join()
    while take() is not None:
        pass
    for name in ("first", "second"):
        assert [number for each, number in taken if each == name] == list(range(300))
    assert mailbox.stats().acked == 600


def test_a_worker_s_loop_may_move_to_another_thread(rig):
    mailbox = rig.mailbox("jobs")
    handled = []
    loop = asyncio.new_event_loop()

    async def handler(message):
        await asyncio.sleep(0)
        handled.append((message.payload, threading.get_ident()))

    async def begin():
        return rig.start(mailbox, handler)

    async def until(count):
        while len(handled) < count:
            await asyncio.sleep(0)

    task = loop.run_until_complete(begin())
    rig.publish_nowait("jobs", 0)
    loop.run_until_complete(asyncio.wait_for(until(1), 5))

    def elsewhere():
        for number in (1, 2):
            rig.publish_nowait("jobs", number)
        loop.run_until_complete(asyncio.wait_for(until(3), 5))
        mailbox.close()
        loop.run_until_complete(asyncio.wait_for(task, 5))

    in_threads(elsewhere)
    loop.close()
    assert [payload for payload, _ in handled] == [0, 1, 2]
    assert handled[0][1] != handled[1][1] == handled[2][1]
