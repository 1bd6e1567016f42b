"""One message into many mailboxes: all of its slots first, then the entry."""

from __future__ import annotations

import asyncio

import pytest


async def test_every_mailbox_gets_a_delivery_of_its_own(rig):
    mailboxes = [rig.mailbox("jobs") for _ in range(3)]
    payload = ["shared"]
    identity = await rig.publish("jobs", payload, headers={"h": "v"})
    taken = [mailbox.take() for mailbox in mailboxes]
    assert [message.id for message in taken] == [identity] * 3
    assert all(message.payload is payload for message in taken)
    assert taken[0]._settle()
    assert [message.settled for message in taken] == [True, False, False]
    for mailbox, message in zip(mailboxes, taken, strict=True):
        mailbox.ack(message)
        assert mailbox.stats().acked == 1
    assert rig.route("jobs").stats().published == 1


async def test_nothing_enters_before_there_is_room_everywhere(rig, turns, drain, soon):
    free, full = rig.mailbox("jobs"), rig.mailbox("jobs", "full", capacity=1)
    await rig.publish("full", 0)
    waiting = asyncio.ensure_future(rig.publish("jobs", 1))
    await turns()
    assert free.depth() == 0
    full.ack(full.take())
    await soon(waiting)
    assert (drain(free), drain(full)) == ([1], [1])


async def test_slots_are_taken_in_ascending_order_and_kept(rig, refused, turns, soon):
    first, second, third = (rig.mailbox(name, "jobs", capacity=1) for name in ("a", "b", "c"))
    await rig.publish("b", 0)
    waiting = asyncio.ensure_future(rig.publish("jobs", 1))
    await turns()
    assert [mailbox.stats().waiting for mailbox in (first, second, third)] == [0, 1, 0]
    with pytest.raises(refused):
        rig.publish_nowait("a", "its slot is taken")
    rig.publish_nowait("c", "not reached yet")
    second.ack(second.take())
    await turns()
    assert [mailbox.stats().waiting for mailbox in (first, second, third)] == [0, 0, 1]
    assert second.depth() == 0
    third.ack(third.take())
    await soon(waiting)
    assert [mailbox.depth() for mailbox in (first, second, third)] == [1, 1, 1]


async def test_a_refusal_gives_back_what_was_taken(rig, refused):
    first, second = rig.mailbox("a", "jobs", capacity=1), rig.mailbox("b", "jobs", capacity=1, overflow="reject")
    await rig.publish("b", 0)
    for _ in range(3):
        with pytest.raises(refused) as caught:
            await rig.publish("jobs", 1)
        assert caught.value.kind == "full"
    assert first.depth() == 0
    rig.publish_nowait("a", "its slot is free")
    assert second.depth() == 1


async def test_a_cancelled_publish_gives_back_what_was_taken_and_the_next_one_gets_it(rig, turns, soon):
    first, second = rig.mailbox("a", "jobs", capacity=1), rig.mailbox("b", "jobs", capacity=1)
    await rig.publish("b", 0)
    waiting = asyncio.ensure_future(rig.publish("jobs", 1))
    await turns()
    following = asyncio.ensure_future(rig.publish("a", 2))
    await turns()
    assert not following.done()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(waiting)
    await soon(following)
    assert first.take().payload == 2
    assert second.stats().waiting == 0


async def test_publish_nowait_enters_everywhere_or_nowhere(rig, refused):
    first, second = rig.mailbox("a", "jobs"), rig.mailbox("b", "jobs", capacity=1)
    await rig.publish("b", 0)
    with pytest.raises(refused):
        rig.publish_nowait("jobs", 1)
    assert first.depth() == 0
    second.ack(second.take())
    rig.publish_nowait("jobs", 1)
    assert (first.depth(), second.depth()) == (1, 1)


async def test_a_mailbox_that_drops_does_not_keep_the_message_from_the_others(rig, drain):
    dropping, taking = rig.mailbox("a", "jobs", capacity=1, overflow="drop_new"), rig.mailbox("jobs")
    await rig.publish("a", 0)
    assert await rig.publish("jobs", 1) is not None
    assert (drain(dropping), drain(taking)) == ([0], [1])
    stats = rig.route("jobs").stats()
    assert (stats.published, stats.dropped) == (1, 0)
    assert dropping.stats().dropped == 1


async def test_a_message_that_every_mailbox_dropped_is_dropped(rig):
    for name in ("a", "b"):
        rig.mailbox(name, "jobs", capacity=1, overflow="drop_new")
        await rig.publish(name, 0)
    assert await rig.publish("jobs", 1) is None
    stats = rig.route("jobs").stats()
    assert (stats.published, stats.dropped) == (0, 1)


async def test_an_old_message_is_evicted_only_when_the_new_one_enters(rig, turns, drain):
    evicting, blocking = rig.mailbox("a", "jobs", capacity=1, overflow="drop_old"), rig.mailbox("b", "jobs", capacity=1)
    await rig.publish("a", "old")
    await rig.publish("b", 0)
    waiting = asyncio.ensure_future(rig.publish("jobs", "new"))
    await turns()
    assert evicting.depths() == {50: 1}
    waiting.cancel()
    await turns()
    assert evicting.stats().dropped == 0
    assert drain(evicting) == ["old"]
    assert drain(blocking) == [0]


async def test_a_delayed_message_takes_a_slot_in_every_mailbox(rig, drain):
    mailboxes = [rig.mailbox("jobs", capacity=1) for _ in range(3)]
    await rig.publish("jobs", 1, delay=1)
    assert [mailbox.stats().delayed for mailbox in mailboxes] == [1, 1, 1]
    rig.clock.advance(1_000_000_000)
    for mailbox in mailboxes:
        assert mailbox.promote() is None
        assert drain(mailbox) == [1]


async def test_keys_and_retries_of_one_mailbox_do_not_touch_the_others(rig):
    one, other = rig.mailbox("jobs"), rig.mailbox("jobs")
    await rig.publish("jobs", 1, key="k")
    one.retry(one.take(), 0)
    assert other.take().attempt == 1
    assert one.take().attempt == 2


async def test_two_publishers_that_take_the_same_slots_do_not_wait_for_each_other(rig, turns, drain, soon):
    first, second = rig.mailbox("a.x", "*.y", "b.z", capacity=1), rig.mailbox("a.x", "*.y", "b.z", capacity=1)
    await rig.publish("b.z", 0)
    waiting = [asyncio.ensure_future(rig.publish(name, number)) for number, name in enumerate(("a.x", "q.y", "b.z"), 1)]
    await turns()
    for _ in range(4):
        for mailbox in (first, second):
            message = mailbox.take()
            if message is not None:
                mailbox.ack(message)
        await turns()
    assert await soon(asyncio.gather(*waiting))
