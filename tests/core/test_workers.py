"""Several pumps on one mailbox: who is woken, and that nobody is forgotten."""

from __future__ import annotations

import asyncio

import pytest


async def test_one_worker_handles_one_message_after_the_other(rig, soon):
    mailbox = rig.mailbox("jobs")
    running = 0
    most = 0

    async def handler(message):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    for _ in range(10):
        rig.publish_nowait("jobs", None)
    mailbox.close()
    await soon(rig.start(mailbox, handler))
    assert most == 1


@pytest.mark.parametrize("before", [True, False], ids=["queued before", "published to idle workers"])
async def test_n_workers_handle_n_messages_at_a_time(rig, turns, soon, before):
    mailbox = rig.mailbox("jobs")
    gate = asyncio.Event()
    running = []

    async def handler(message):
        running.append(message.payload)
        await gate.wait()

    if before:
        for number in range(6):
            rig.publish_nowait("jobs", number)
    tasks = [rig.start(mailbox, handler) for _ in range(4)]
    await turns()
    if not before:
        for number in range(6):
            rig.publish_nowait("jobs", number)
        await turns(10)
    assert sorted(running) == [0, 1, 2, 3]
    gate.set()
    mailbox.close()
    await soon(asyncio.gather(*tasks))
    assert sorted(running) == list(range(6))


async def test_a_bare_yield_of_a_handler_lets_other_workers_take_what_is_queued(rig, soon):
    mailbox = rig.mailbox("jobs")
    running = 0
    most = 0

    async def handler(message):
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(5):
            await asyncio.sleep(0)
        running -= 1

    tasks = [rig.start(mailbox, handler) for _ in range(3)]
    await asyncio.sleep(0)
    for _ in range(9):
        rig.publish_nowait("jobs", None)
    mailbox.close()
    await soon(asyncio.gather(*tasks))
    assert most == 3


async def test_a_burst_wakes_one_worker_once(rig, turns, soon):
    mailbox = rig.mailbox("jobs")
    workers = []

    async def handler(message):
        workers.append(asyncio.current_task())

    tasks = [rig.start(mailbox, handler) for _ in range(4)]
    await turns()
    for _ in range(20):
        rig.publish_nowait("jobs", None)
    await turns()
    assert len(workers) == 20
    assert len(set(workers)) == 1
    mailbox.close()
    await soon(asyncio.gather(*tasks))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("capacity", [1, 2, 10])
async def test_no_wake_up_is_lost_whatever_the_handlers_do(rig, soon, workers, capacity):
    mailbox = rig.mailbox("jobs", capacity=capacity)
    handled = []

    async def handler(message):
        for _ in range(message.payload % 4):
            await asyncio.sleep(0)
        handled.append(message.payload)

    tasks = [rig.start(mailbox, handler) for _ in range(workers)]

    async def produce(start):
        for number in range(start, 200, 4):
            await rig.publish("jobs", number)
            if number % 3 == 0:
                await asyncio.sleep(0)

    await soon(asyncio.gather(*(produce(start) for start in range(4))))
    mailbox.close()
    await soon(asyncio.gather(*tasks))
    assert sorted(handled) == list(range(200))


async def test_a_slow_handler_does_not_keep_others_from_working(rig, turns, soon):
    mailbox = rig.mailbox("jobs")
    gate = asyncio.Event()
    handled = []

    async def handler(message):
        if message.payload == "slow":
            await gate.wait()
        handled.append(message.payload)

    tasks = [rig.start(mailbox, handler) for _ in range(2)]
    rig.publish_nowait("jobs", "slow")
    await turns()
    for number in range(5):
        rig.publish_nowait("jobs", number)
        await turns()
    assert handled == [0, 1, 2, 3, 4]
    gate.set()
    mailbox.close()
    await soon(asyncio.gather(*tasks))


async def test_an_urgent_message_overtakes_between_two_messages_of_a_busy_pump(rig, soon):
    mailbox = rig.mailbox("jobs")
    handled = []

    def handler(message):
        handled.append(message.payload)
        if message.payload == 1:
            rig.publish_nowait("jobs", "urgent", priority=0)

    for number in range(5):
        rig.publish_nowait("jobs", number)
    mailbox.close()
    task = rig.start(mailbox, handler)
    await soon(task)
    assert handled[:2] == [0, 1]
    assert handled[2:] == [2, 3, 4]


async def test_an_urgent_message_published_by_a_handler_is_next(rig, turns, soon):
    mailbox = rig.mailbox("jobs")
    handled = []

    def handler(message):
        handled.append(message.payload)
        if message.payload == 1:
            rig.publish_nowait("jobs", "urgent", priority=0)

    for number in range(5):
        rig.publish_nowait("jobs", number)
    task = rig.start(mailbox, handler)
    await turns()
    assert handled == [0, 1, "urgent", 2, 3, 4]
    mailbox.close()
    await soon(task)


async def test_keys_are_handled_one_at_a_time_across_workers(rig, soon):
    mailbox = rig.mailbox("jobs", capacity=1000)
    running = set()
    handled = []

    async def handler(message):
        assert message.key not in running
        running.add(message.key)
        await asyncio.sleep(0)
        running.discard(message.key)
        handled.append((message.key, message.payload))

    tasks = [rig.start(mailbox, handler) for _ in range(4)]
    for number in range(200):
        rig.publish_nowait("jobs", number, key=f"k{number % 7}")
    mailbox.close()
    await soon(asyncio.gather(*tasks))
    assert rig.failures == []
    for key in {key for key, _ in handled}:
        numbers = [number for each, number in handled if each == key]
        assert numbers == sorted(numbers)
    assert len(handled) == 200


async def test_a_pump_and_ready_may_share_a_mailbox(rig, turns, soon):
    mailbox = rig.mailbox("jobs")
    handled = []
    task = rig.start(mailbox, lambda message: handled.append(message.payload))
    waiting = asyncio.ensure_future(mailbox.ready())
    await turns()
    rig.publish_nowait("jobs", 1)
    await soon(waiting)
    await turns()
    assert handled == [1]
    mailbox.close()
    await soon(task)


async def test_workers_keep_working_when_their_loop_mates_are_gone(rig, turns, soon):
    mailbox = rig.mailbox("jobs")
    loop = asyncio.new_event_loop()
    abandoned = rig.pump(mailbox, print)

    def elsewhere():
        task = loop.create_task(abandoned)
        loop.run_until_complete(asyncio.wait([task], timeout=0.01))
        loop.close()
        task._log_destroy_pending = False

    await asyncio.to_thread(elsewhere)
    handled = []
    task = rig.start(mailbox, lambda message: handled.append(message.payload))
    await turns()
    for number in range(3):
        rig.publish_nowait("jobs", number)
        await turns()
    assert handled == [0, 1, 2]
    mailbox.close()
    await soon(task)
