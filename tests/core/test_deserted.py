"""Mailboxes whose workers' loops are closed: nobody is left to handle what would be published there."""

from __future__ import annotations

import asyncio
import threading

import pytest


@pytest.fixture
def elsewhere():
    """Run a coroutine function in a loop of its own, in a thread of its own, and close that loop under its tasks."""

    def run(function):
        loop = asyncio.new_event_loop()
        tasks = []

        def thread():
            tasks.append(loop.run_until_complete(function()))
            loop.close()

        worker = threading.Thread(target=thread)
        worker.start()
        worker.join()
        return tasks

    return run


@pytest.fixture
def dead(rig, elsewhere):
    """A worker, or more, of a mailbox in a loop that is then closed. Their tasks are kept."""
    kept = []

    def leave(mailbox, workers=1, handler=lambda message: None):
        async def work():
            tasks = [rig.start(mailbox, handler) for _ in range(workers)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            for task in tasks:
                task._log_destroy_pending = False
            return tasks

        kept.append(elsewhere(work))

    return leave


def refusal(caught, channel="jobs"):
    return (caught.value.kind, caught.value.channel, caught.value.detail) == ("loop_closed", channel, None)


PUBLISHES = {
    "plain": lambda rig: rig.publish("jobs", 1),
    "with a priority": lambda rig: rig.publish("jobs", 1, priority=3),
    "with options": lambda rig: rig.publish("jobs", 1, key="k", headers={"h": "v"}),
}


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("publish", PUBLISHES.values(), ids=PUBLISHES)
async def test_a_publish_says_that_their_loop_is_closed_at_once_and_again(rig, dead, refused, publish, workers):
    mailbox = rig.mailbox("jobs")
    dead(mailbox, workers)
    for _ in range(3):
        with pytest.raises(refused) as caught:
            await publish(rig)
        assert refusal(caught)
    assert rig.route("jobs").stats().refused == 3
    assert rig.route("jobs").stats().published == 0


async def test_a_publish_that_does_not_wait_says_so_too(rig, dead, refused):
    dead(rig.mailbox("jobs"))
    for _ in range(2):
        with pytest.raises(refused) as caught:
            rig.publish_nowait("jobs", 1)
        assert refusal(caught)


async def test_each_of_many_is_refused(rig, dead, refused):
    rig.mailbox("live")
    dead(rig.mailbox("jobs"))
    with pytest.raises(refused) as caught:
        await rig.router.publish_many([("jobs", 1), ("live", 2), ("jobs", 3), ("jobs", 4)])
    assert caught.value.kind == "many"
    _, errors = caught.value.detail
    assert {index: error.kind for index, error in errors.items()} == dict.fromkeys([0, 2, 3], "loop_closed")


async def test_a_new_worker_makes_it_live_again(rig, dead, refused, turns):
    mailbox = rig.mailbox("jobs", capacity=5)
    dead(mailbox)
    with pytest.raises(refused):
        await rig.publish("jobs", "lost")
    handled = []
    worker = rig.start(mailbox, lambda message: handled.append(message.payload))
    for number in range(8):
        await rig.publish("jobs", number)
        await turns()
    assert handled == list(range(8))
    worker.cancel()


async def test_a_living_worker_does_what_a_dead_one_would_have(rig, dead, turns):
    mailbox = rig.mailbox("jobs")
    handled = []
    worker = rig.start(mailbox, lambda message: handled.append(message.payload))
    await turns()
    dead(mailbox, 2)
    for number in range(4):
        await rig.publish("jobs", number)
        await turns()
    assert handled == list(range(4))
    worker.cancel()


async def test_a_worker_that_was_cancelled_or_stopped_leaves_no_desert(rig, turns, drain):
    mailbox = rig.mailbox("jobs")
    task = rig.start(mailbox, lambda message: None)
    await turns()
    task.cancel()
    await turns()
    await rig.publish("jobs", 1)
    assert drain(mailbox) == [1]


@pytest.mark.parametrize("publish", PUBLISHES.values(), ids=PUBLISHES)
async def test_what_was_refused_is_not_left_inside(rig, dead, refused, publish):
    mailbox = rig.mailbox("jobs")
    dead(mailbox)
    with pytest.raises(refused):
        await publish(rig)
    assert mailbox.depth() == 0
    assert mailbox.stats().delivered == 0


@pytest.mark.parametrize("options", [{}, {"priority": 7}, {"headers": {"h": "v"}}], ids=str)
async def test_others_take_what_a_dead_mailbox_cannot(rig, dead, drain, options):
    jobs, everything = rig.mailbox("jobs"), rig.mailbox(">")
    dead(jobs)
    for number in range(3):
        assert await rig.publish("jobs", number, **options)
    assert drain(everything) == [0, 1, 2]
    assert rig.route("jobs").stats().published == 3


async def test_where_all_of_several_are_dead_the_publish_says_so(rig, dead, refused):
    for pattern in ("jobs", "*", ">"):
        dead(rig.mailbox(pattern))
    # A fan-out learns it from the mailboxes that it wakes, the first time at the latest.
    try:
        await rig.publish("jobs", 0)
    except refused as error:
        assert error.kind == "loop_closed"
    with pytest.raises(refused) as caught:
        await rig.publish("jobs", 1)
    assert refusal(caught)


async def test_it_can_be_closed_and_cleared(rig, dead, refused):
    mailbox = rig.mailbox("jobs")
    dead(mailbox)
    with pytest.raises(refused):
        await rig.publish("jobs", 1)
    mailbox.close()
    mailbox.clear()
    assert mailbox.depth() == 0
    stats = mailbox.stats()
    assert (stats.acked, stats.in_flight, stats.waiting) == (0, 0, 0)
