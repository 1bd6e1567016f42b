"""Router.publish_many: items in order, waiting for room as needed."""

from __future__ import annotations

import asyncio

import pytest


async def test_items_arrive_in_order_and_the_ids_are_theirs(rig):
    mailbox = rig.mailbox(">")
    identities = await rig.router.publish_many([("a", 1), ("b", 2), ("a", 3)])
    taken = [mailbox.take() for _ in range(3)]
    assert [(message.channel, message.payload) for message in taken] == [("a", 1), ("b", 2), ("a", 3)]
    assert list(identities) == [message.id for message in taken]


async def test_an_item_may_have_a_priority_and_options(rig):
    mailbox = rig.mailbox("jobs")
    await rig.router.publish_many(
        [("jobs", 1), ("jobs", 2, 60), ("jobs", 3, None), ("jobs", 4, 70, {"key": "k", "headers": {"h": "v"}})]
    )
    taken = [mailbox.take() for _ in range(4)]
    assert [(message.payload, message.priority) for message in taken] == [(1, 50), (3, 50), (2, 60), (4, 70)]
    assert (taken[3].key, dict(taken[3].headers)) == ("k", {"h": "v"})


async def test_nothing_is_published_for_no_items(rig):
    assert list(await rig.router.publish_many([])) == []


async def test_items_may_come_from_a_generator(rig, drain):
    mailbox = rig.mailbox("jobs")
    await rig.router.publish_many(("jobs", number) for number in range(5))
    assert drain(mailbox) == list(range(5))


async def test_it_waits_for_room(rig, turns, drain, soon):
    mailbox = rig.mailbox("jobs", capacity=2)
    publishing = asyncio.ensure_future(rig.router.publish_many([("jobs", number) for number in range(5)]))
    await turns()
    assert mailbox.depth() == 2
    handled = []
    while not publishing.done():
        handled += drain(mailbox)
        await turns()
    assert len(await soon(publishing)) == 5
    assert handled + drain(mailbox) == list(range(5))


async def test_what_a_policy_dropped_is_none(rig):
    rig.mailbox("jobs", capacity=1, overflow="drop_new")
    first, second = await rig.router.publish_many([("jobs", 1), ("jobs", 2)])
    assert first is not None
    assert second is None


async def test_a_refused_item_does_not_stop_the_others(rig, refused, drain):
    mailbox = rig.mailbox("jobs")
    with pytest.raises(refused) as caught:
        await rig.router.publish_many(
            [("jobs", 1), ("jobs", 2, 999), ("none", 3, None, {"mandatory": True}), ("jobs", 4)]
        )
    assert (caught.value.kind, caught.value.channel) == ("many", "")
    results, errors = caught.value.detail
    assert [result is None for result in results] == [False, True, True, False]
    assert {index: error.kind for index, error in errors.items()} == {1: "priority", 2: "no_subscribers"}
    assert drain(mailbox) == [1, 4]


async def test_a_malformed_item_is_refused_like_any_other(rig, refused, drain):
    mailbox = rig.mailbox("jobs")
    with pytest.raises(refused) as caught:
        await rig.router.publish_many([("jobs",), ("jobs", 1), ("jobs", 2, None, {"colour": "red"})])
    _, errors = caught.value.detail
    assert sorted(errors) == [0, 2]
    assert drain(mailbox) == [1]


async def test_items_take_the_path_of_their_channel(rig):
    seen = []

    async def path(payload, **options):
        seen.append((payload, options))
        return f"id {payload}"

    rig.router.add(rig.core.Route(rig.router, "jobs", path=path))
    assert list(await rig.router.publish_many([("jobs", 1), ("jobs", 2, 7)])) == ["id 1", "id 2"]
    assert seen == [(1, {}), (2, {"priority": 7})]


async def test_cancelling_it_takes_back_only_what_waits(rig, turns, drain, soon):
    mailbox = rig.mailbox("jobs", capacity=2)
    publishing = asyncio.ensure_future(rig.router.publish_many([("jobs", number) for number in range(5)]))
    await turns()
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(publishing)
    assert drain(mailbox) == [0, 1]
    assert mailbox.stats().waiting == 0


async def test_the_loop_runs_while_very_many_are_published(rig):
    rig.mailbox("jobs", capacity=10_000)
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticker = asyncio.create_task(tick())
    await rig.router.publish_many([("jobs", None)] * 5000)
    ticker.cancel()
    assert ticks >= 3
