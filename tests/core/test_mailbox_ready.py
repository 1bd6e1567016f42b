"""Mailbox: waiting for work without a pump, and the end of a mailbox."""

from __future__ import annotations

import asyncio
import threading

import pytest


async def test_ready_is_done_at_once_when_there_is_something(rig):
    mailbox = rig.mailbox("jobs")
    rig.publish_nowait("jobs", None)
    assert await mailbox.ready() is True


async def test_ready_waits_for_a_message(rig, turns, soon):
    mailbox = rig.mailbox("jobs")
    waiting = asyncio.ensure_future(mailbox.ready())
    await turns()
    assert not waiting.done()
    rig.publish_nowait("jobs", None)
    assert await soon(waiting) is True
    assert mailbox.take() is not None


@pytest.mark.parametrize("how", ["offer", "retry", "release", "promote", "ack of a key"])
async def test_whatever_queues_a_message_ends_the_wait(rig, turns, how, soon):
    mailbox = rig.mailbox("jobs")
    if how == "promote":
        rig.publish_nowait("jobs", None, delay=1)
    elif how == "ack of a key":
        rig.publish_nowait("jobs", None, key="k")
        rig.publish_nowait("jobs", None, key="k")
    elif how != "offer":
        rig.publish_nowait("jobs", None)
    message = mailbox.take()
    assert mailbox.take() is None
    waiting = asyncio.ensure_future(mailbox.ready())
    await turns()
    assert not waiting.done()
    if how == "offer":
        mailbox.offer(rig.message())
    elif how == "retry":
        mailbox.retry(message, 0)
    elif how == "release":
        mailbox.release(message)
    elif how == "promote":
        rig.clock.advance(1_000_000_000)
        mailbox.promote()
    else:
        mailbox.ack(message)
    assert await soon(waiting) is True
    assert mailbox.take() is not None


async def test_ready_is_false_once_the_mailbox_is_closed_and_empty(rig):
    mailbox = rig.mailbox("jobs")
    rig.publish_nowait("jobs", None)
    mailbox.close()
    assert mailbox.closed is True
    assert await mailbox.ready() is True
    mailbox.ack(mailbox.take())
    assert await mailbox.ready() is False


async def test_closing_an_empty_mailbox_ends_the_waits(rig, turns, soon):
    mailbox = rig.mailbox("jobs")
    waits = [asyncio.ensure_future(mailbox.ready()) for _ in range(3)]
    await turns()
    mailbox.close()
    assert await soon(asyncio.gather(*waits)) == [False] * 3


async def test_a_closed_mailbox_with_delayed_messages_is_not_empty(rig, turns, soon):
    mailbox = rig.mailbox("jobs")
    rig.publish_nowait("jobs", None, delay=1)
    mailbox.close()
    waiting = asyncio.ensure_future(mailbox.ready())
    await turns()
    assert not waiting.done()
    rig.clock.advance(1_000_000_000)
    mailbox.promote()
    assert await soon(waiting) is True


async def test_clearing_a_closed_mailbox_ends_the_waits(rig, turns, soon):
    mailbox = rig.mailbox("jobs")
    rig.publish_nowait("jobs", None, delay=1)
    mailbox.close()
    waiting = asyncio.ensure_future(mailbox.ready())
    await turns()
    assert len(mailbox.clear()) == 1
    assert await soon(waiting) is False


async def test_a_cancelled_wait_does_not_swallow_the_wake_up_of_another(rig, turns, soon):
    mailbox = rig.mailbox("jobs")
    first, second = (asyncio.ensure_future(mailbox.ready()) for _ in range(2))
    await turns()
    first.cancel()
    rig.publish_nowait("jobs", None)
    assert await soon(second) is True
    await turns()
    assert first.cancelled()


async def test_a_message_from_another_thread_ends_the_wait(rig, turns, soon):
    mailbox = rig.mailbox("jobs")
    waiting = asyncio.ensure_future(mailbox.ready())
    await turns()
    thread = threading.Thread(target=rig.publish_nowait, args=("jobs", None))
    thread.start()
    assert await soon(waiting) is True
    thread.join()


def test_closing_twice_is_harmless(rig):
    mailbox = rig.mailbox()
    mailbox.close()
    mailbox.close()
    assert mailbox.closed is True


def test_what_is_in_flight_may_come_back_after_closing(rig):
    mailbox = rig.mailbox("jobs")
    for _ in range(3):
        rig.publish_nowait("jobs", None)
    one, two, three = (mailbox.take() for _ in range(3))
    mailbox.close()
    mailbox.retry(one, 0)
    mailbox.release(two)
    mailbox.ack(three)
    assert mailbox.depth() == 2
    mailbox.ack(mailbox.take())
    mailbox.ack(mailbox.take())
    assert mailbox.stats().acked == 3
