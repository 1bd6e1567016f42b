"""What a full mailbox does: block, drop_new, drop_old, reject."""

from __future__ import annotations

import asyncio

import pytest


def counters(rig, channel="jobs"):
    stats = rig.route(channel).stats()
    return stats.published, stats.unrouted, stats.dropped, stats.refused


async def publish(rig, how, *args, **options):
    if how == "publish":
        return await rig.publish(*args, **options)
    return rig.publish_nowait(*args, **options)


both = pytest.mark.parametrize("how", ["publish", "publish_nowait"])


@both
async def test_reject_raises_full_with_the_refused_message(rig, refused, how):
    mailbox = rig.mailbox("jobs", capacity=1, overflow="reject")
    await publish(rig, how, "jobs", 1)
    with pytest.raises(refused) as caught:
        await publish(rig, how, "jobs", 2, priority=7, headers={"h": "v"})
    assert (caught.value.kind, caught.value.channel) == ("full", "jobs")
    message = caught.value.detail
    assert (message.payload, message.priority, dict(message.headers)) == (2, 7, {"h": "v"})
    assert len(message.id) == 32
    assert counters(rig) == (1, 0, 0, 1)
    assert mailbox.stats().dropped == 0


@both
async def test_drop_new_drops_the_newcomer_and_answers_none(rig, drain, how):
    mailbox = rig.mailbox("jobs", capacity=1, overflow="drop_new")
    assert await publish(rig, how, "jobs", 1)
    assert await publish(rig, how, "jobs", 2) is None
    assert await publish(rig, how, "jobs", 3, priority=0) is None
    assert counters(rig) == (1, 0, 2, 0)
    assert mailbox.stats().dropped == 2
    assert drain(mailbox) == [1]


@both
async def test_drop_old_evicts_the_least_urgent_and_in_it_the_oldest(rig, drain, how):
    mailbox = rig.mailbox("jobs", capacity=4, overflow="drop_old")
    for name, priority in (("urgent", 0), ("old", 90), ("new", 90), ("middle", 50)):
        await publish(rig, how, "jobs", name, priority=priority)
    assert await publish(rig, how, "jobs", "newest", priority=90)
    assert await publish(rig, how, "jobs", "more urgent", priority=10)
    assert mailbox.stats().dropped == 2
    assert counters(rig) == (6, 0, 0, 0)
    assert drain(mailbox) == ["urgent", "more urgent", "middle", "newest"]


@both
async def test_drop_old_spares_what_is_in_flight_and_drops_the_newcomer_when_nothing_else_is_there(rig, how):
    mailbox = rig.mailbox("jobs", capacity=1, overflow="drop_old")
    await publish(rig, how, "jobs", 1)
    message = mailbox.take()
    assert await publish(rig, how, "jobs", 2) is None
    assert counters(rig) == (1, 0, 1, 0)
    assert mailbox.stats().dropped == 1
    mailbox.ack(message)
    assert await publish(rig, how, "jobs", 3)


async def test_drop_old_evicts_parked_messages_too(rig, drain):
    mailbox = rig.mailbox("jobs", capacity=3, overflow="drop_old")
    for name in ("a1", "a2", "a3"):
        await rig.publish("jobs", name, key="a")
    a1 = mailbox.take()
    assert mailbox.take() is None
    await rig.publish("jobs", "x")
    assert mailbox.stats().parked == 1
    assert drain(mailbox) == ["x"]
    mailbox.ack(a1)
    assert drain(mailbox) == ["a3"]


async def test_drop_old_frees_the_key_that_an_evicted_retry_held(rig):
    mailbox = rig.mailbox("jobs", capacity=1, overflow="drop_old", hold_keys=True)
    await rig.publish("jobs", "a1", key="a")
    mailbox.retry(mailbox.take(), 0)
    await rig.publish("jobs", "a2", key="a")
    assert mailbox.take().payload == "a2"


async def test_drop_old_makes_room_for_delayed_messages(rig):
    mailbox = rig.mailbox("jobs", capacity=1, overflow="drop_old")
    await rig.publish("jobs", 1)
    assert await rig.publish("jobs", 2, delay=5)
    stats = mailbox.stats()
    assert (stats.queued, stats.delayed, stats.dropped) == (0, 1, 1)


async def test_block_waits_for_a_slot(rig, turns, drain, soon):
    mailbox = rig.mailbox("jobs", capacity=1)
    await rig.publish("jobs", 1)
    waiting = asyncio.ensure_future(rig.publish("jobs", 2))
    await turns()
    assert not waiting.done()
    assert mailbox.stats().waiting == 1
    mailbox.ack(mailbox.take())
    assert len(await soon(waiting)) == 32
    assert mailbox.stats().waiting == 0
    assert counters(rig) == (2, 0, 0, 0)
    assert drain(mailbox) == [2]


def test_publish_nowait_is_refused_by_a_mailbox_that_would_block(rig, refused):
    mailbox = rig.mailbox("jobs", capacity=1)
    rig.publish_nowait("jobs", 1)
    with pytest.raises(refused) as caught:
        rig.publish_nowait("jobs", 2)
    assert (caught.value.kind, caught.value.detail.payload) == ("full", 2)
    assert (mailbox.stats().waiting, mailbox.stats().queued) == (0, 1)
    assert counters(rig) == (1, 0, 0, 1)


async def test_waiting_publishers_enter_in_the_order_they_came(rig, turns, drain, soon):
    mailbox = rig.mailbox("jobs", capacity=1)
    await rig.publish("jobs", 0)
    waiting = [asyncio.ensure_future(rig.publish("jobs", number)) for number in range(1, 6)]
    await turns()
    assert drain(mailbox) == list(range(6))
    assert len(set(await soon(asyncio.gather(*waiting)))) == 5


async def test_a_newcomer_does_not_overtake_those_who_wait(rig, refused, turns, soon):
    mailbox = rig.mailbox("jobs", capacity=1)
    await rig.publish("jobs", 1)
    waiting = asyncio.ensure_future(rig.publish("jobs", 2))
    await turns()
    mailbox.ack(mailbox.take())
    with pytest.raises(refused):
        rig.publish_nowait("jobs", 3)
    await soon(waiting)
    assert mailbox.take().payload == 2


async def test_a_waiting_publish_that_is_cancelled_has_not_happened(rig, turns, drain, soon):
    mailbox = rig.mailbox("jobs", capacity=1)
    await rig.publish("jobs", 1)
    cancelled, kept = (asyncio.ensure_future(rig.publish("jobs", number)) for number in (2, 3))
    await turns()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(cancelled)
    assert mailbox.stats().waiting == 1
    assert drain(mailbox) == [1, 3]
    await soon(kept)
    assert counters(rig) == (2, 0, 0, 0)


async def test_a_task_that_is_cancelled_while_it_publishes_takes_its_message_back(rig, turns, drain):
    mailbox = rig.mailbox("jobs", capacity=1)
    await rig.publish("jobs", 1)

    async def publisher():
        await rig.publish("jobs", 2)

    task = asyncio.create_task(publisher())
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert drain(mailbox) == [1]
    assert mailbox.stats().waiting == 0


async def test_a_publish_that_times_out_gives_its_place_to_the_next(rig, drain, soon):
    mailbox = rig.mailbox("jobs", capacity=1)
    await rig.publish("jobs", 1)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(rig.publish("jobs", 2), 0.01)
    following = asyncio.ensure_future(rig.publish("jobs", 3))
    await asyncio.sleep(0)
    assert drain(mailbox) == [1, 3]
    await soon(following)


async def test_a_task_cancelled_before_its_slot_comes_free_has_not_published(rig, turns, drain):
    mailbox = rig.mailbox("jobs", capacity=1)
    await rig.publish("jobs", 1)

    async def publisher():
        await rig.publish("jobs", 2)

    task = asyncio.create_task(publisher())
    await turns()
    task.cancel()
    mailbox.ack(mailbox.take())
    with pytest.raises(asyncio.CancelledError):
        await task
    await turns()
    assert drain(mailbox) == []
    assert rig.publish_nowait("jobs", 3)


async def test_more_capacity_lets_those_who_wait_in(rig, turns, drain, soon):
    mailbox = rig.mailbox("jobs", capacity=1)
    await rig.publish("jobs", 0)
    waiting = [asyncio.ensure_future(rig.publish("jobs", number)) for number in (1, 2, 3)]
    await turns()
    mailbox.configure(capacity=3)
    await turns()
    assert [each.done() for each in waiting] == [True, True, False]
    assert drain(mailbox) == [0, 1, 2, 3]
    await soon(asyncio.gather(*waiting))


async def test_less_capacity_takes_nothing_away(rig, refused, drain):
    mailbox = rig.mailbox("jobs", capacity=3)
    for number in range(3):
        await rig.publish("jobs", number)
    mailbox.configure(capacity=1)
    mailbox.ack(mailbox.take())
    with pytest.raises(refused):
        rig.publish_nowait("jobs", 3)
    assert drain(mailbox) == [1, 2]
    rig.publish_nowait("jobs", 4)


@pytest.mark.parametrize("policy", ["drop_new", "drop_old", "reject"])
async def test_a_new_policy_decides_about_those_who_wait(rig, refused, turns, drain, policy, soon):
    mailbox = rig.mailbox("jobs", capacity=1)
    await rig.publish("jobs", 1)
    waiting = asyncio.ensure_future(rig.publish("jobs", 2))
    await turns()
    mailbox.configure(overflow=policy)
    if policy == "reject":
        with pytest.raises(refused) as caught:
            await soon(waiting)
        assert caught.value.kind == "full"
    elif policy == "drop_new":
        assert await soon(waiting) is None
        assert counters(rig) == (1, 0, 1, 0)
    else:
        assert await soon(waiting) is not None
    assert mailbox.stats().waiting == 0
    assert drain(mailbox) == [2 if policy == "drop_old" else 1]


async def test_closing_a_mailbox_lets_those_who_wait_for_it_go_on_without_it(rig, turns, drain, soon):
    mailbox = rig.mailbox("jobs", capacity=1)
    other = rig.mailbox("jobs")
    await rig.publish("jobs", 1)
    waiting = asyncio.ensure_future(rig.publish("jobs", 2))
    await turns()
    mailbox.close()
    assert await soon(waiting) is not None
    assert drain(other) == [1, 2]
    assert drain(mailbox) == [1]


async def test_closing_the_only_mailbox_leaves_those_who_wait_without_a_subscriber(rig, refused, turns, soon):
    mailbox = rig.mailbox("jobs", capacity=1)
    await rig.publish("jobs", 1)
    waiting = asyncio.ensure_future(rig.publish("jobs", 2))
    mandatory = asyncio.ensure_future(rig.publish("jobs", 2, mandatory=True))
    await turns()
    mailbox.close()
    assert await soon(waiting) is not None
    with pytest.raises(refused) as caught:
        await soon(mandatory)
    assert caught.value.kind == "no_subscribers"
    assert counters(rig) == (1, 1, 0, 1)


async def test_closing_a_mailbox_of_a_closed_router_refuses_those_who_wait(rig, refused, turns, soon):
    mailbox = rig.mailbox("jobs", capacity=1)
    await rig.publish("jobs", 1)
    waiting = asyncio.ensure_future(rig.publish("jobs", 2))
    await turns()
    rig.router.close()
    await turns()
    assert not waiting.done()
    mailbox.close()
    with pytest.raises(refused) as caught:
        await soon(waiting)
    assert (caught.value.kind, caught.value.channel) == ("closed", "jobs")


async def test_a_closed_mailbox_takes_no_new_messages(rig, drain):
    closed, other = rig.mailbox("jobs"), rig.mailbox("jobs")
    closed.close()
    assert await rig.publish("jobs", 1)
    assert (drain(closed), drain(other)) == ([], [1])


async def test_hundreds_of_waiting_publishers_can_be_refused_one_after_the_other(rig, refused, turns, soon):
    first, second = rig.mailbox("jobs", capacity=1), rig.mailbox("jobs", capacity=1, overflow="reject")
    for mailbox in (first, second):
        mailbox.offer(rig.message())
    waiting = [asyncio.ensure_future(rig.publish("jobs", number)) for number in range(1500)]
    await turns()
    first.ack(first.take())
    results = await soon(asyncio.gather(*waiting, return_exceptions=True))
    assert {type(result) for result in results} == {refused}
    assert (first.stats().waiting, first.depth(), second.depth()) == (0, 0, 1)
    assert second.take_relaxed(0) is not None
    rig.publish_nowait("jobs", "there is room again")


async def test_drop_old_keeps_to_one_for_one_where_offers_went_past_the_capacity(rig, drain):
    mailbox = rig.mailbox("jobs", capacity=1, overflow="drop_old")
    for number in range(3):
        mailbox.offer(rig.message(number))
    assert await rig.publish("jobs", "new")
    assert mailbox.stats().dropped == 1
    assert drain(mailbox) == [1, 2, "new"]


@pytest.mark.parametrize("delay", [None, 60.0])
async def test_drop_old_owes_nothing_for_what_was_offered_past_the_capacity(rig, delay):
    mailbox = rig.mailbox("jobs", capacity=1, overflow="drop_old")
    mailbox.offer(rig.message("first"))
    mailbox.offer(rig.message("second"))
    assert mailbox.take().payload == "first"
    assert rig.publish_nowait("jobs", "third", delay=delay) is not None
    assert mailbox.stats().dropped == 1
