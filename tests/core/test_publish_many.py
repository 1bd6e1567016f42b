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


@pytest.mark.parametrize("item", [5, None, ("jobs",), (), (None, 1), ("jobs", 1, None, 5), ("jobs", 1, None, None, 5)])
async def test_what_is_no_item_fails_alone(rig, refused, drain, item):
    mailbox = rig.mailbox("jobs")
    with pytest.raises(refused) as caught:
        await rig.router.publish_many([("jobs", 1), item, ("jobs", 2), item])
    results, errors = caught.value.detail
    assert [result is None for result in results] == [False, True, False, True]
    assert {index: isinstance(error, Exception) for index, error in errors.items()} == {1: True, 3: True}
    assert drain(mailbox) == [1, 2]


@pytest.mark.parametrize("extra", [(), (None, {"key": "k"})], ids=["plain", "keyed"])
async def test_what_comes_before_an_exception_of_the_items_is_published(rig, drain, extra):
    mailbox = rig.mailbox("jobs")

    def items():
        yield ("jobs", 1)
        yield ("jobs", 2, *extra)
        raise KeyError("no more")

    with pytest.raises(KeyError, match="no more"):
        await rig.router.publish_many(items())
    assert drain(mailbox) == [1, 2]


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


async def test_a_list_of_several_channels_keeps_every_order(rig):
    everything, some = rig.mailbox(">", capacity=1_000), rig.mailbox("b", capacity=1_000)
    items = [(channel, number) for number, channel in enumerate("aaabbabcccccb" * 20)]
    identities = list(await rig.router.publish_many(items))
    taken = [everything.take() for _ in items]
    assert [(message.channel, message.payload) for message in taken] == items
    assert [message.id for message in taken] == identities
    assert len(set(identities)) == len(items)
    assert [some.take().payload for _ in range(some.depth())] == [number for channel, number in items if channel == "b"]
    assert {channel: route.stats().published for channel, route in rig.router.routes().items()} == {
        channel: sum(channel == other for other, _ in items) for channel in "abc"
    }


async def test_plain_items_and_others_take_turns(rig, drain):
    mailbox = rig.mailbox("jobs")
    plain = [("jobs", number) for number in range(4)]
    items = [*plain, ("jobs", "urgent", 0), *plain, ["jobs", "a list"], *plain, ("jobs", "empty", None, None)]
    assert len(await rig.router.publish_many(items)) == len(items)
    assert drain(mailbox) == ["urgent", *range(4), *range(4), "a list", *range(4), "empty"]


async def test_a_list_that_is_emptied_meanwhile_is_no_harm(rig, turns, drain, soon):
    mailbox = rig.mailbox("jobs", capacity=3)
    items = [("jobs", object()) for _ in range(9)]
    publishing = asyncio.ensure_future(rig.router.publish_many(items))
    await turns()
    items.clear()
    handled = []
    while not publishing.done():
        handled += drain(mailbox)
        await turns()
    assert 4 <= len(await soon(publishing)) == len(handled + drain(mailbox)) <= 9


async def test_a_channel_that_expires_its_messages_does_so_for_each(rig):
    mailbox = rig.mailbox("jobs")
    rig.router.add(rig.core.Route(rig.router, "jobs", ttl_ns=5))
    await rig.router.publish_many([("jobs", number) for number in range(4)])
    rig.clock.advance(6)
    assert mailbox.take() is None
    assert [message.payload for message in mailbox.settler.expired_messages] == [0, 1, 2, 3]


async def test_every_kind_of_full_mailbox_has_its_policy_for_each_item(rig, refused, drain):
    policies = ("drop_old", "drop_new", "reject")
    mailboxes = {policy: rig.mailbox(policy, capacity=3, overflow=policy) for policy in policies}
    published = {}
    for policy in ("drop_old", "drop_new"):
        results = await rig.router.publish_many([(policy, number) for number in range(5)])
        published[policy] = [result is not None for result in results]
    with pytest.raises(refused) as caught:
        await rig.router.publish_many([("reject", number) for number in range(5)])
    assert published == {"drop_old": [True] * 5, "drop_new": [True] * 3 + [False] * 2}
    assert {index: error.kind for index, error in caught.value.detail[1].items()} == {3: "full", 4: "full"}
    assert [drain(mailboxes[policy]) for policy in policies] == [[2, 3, 4], [0, 1, 2], [0, 1, 2]]


async def test_many_wake_one_worker_and_batches_take_them(rig, turns):
    mailbox = rig.mailbox("jobs", capacity=1_000)
    batches = []

    async def handler(messages):
        batches.append([message.payload for message in messages])

    worker = rig.start(mailbox, handler, batch=40)
    await turns()
    for _ in range(2):
        await rig.router.publish_many([("jobs", number) for number in range(100)])
        await turns()
    assert batches == 2 * [list(range(40)), list(range(40, 80)), list(range(80, 100))]
    stats = mailbox.stats()
    assert (stats.delivered, stats.acked, stats.in_flight) == (200, 200, 0)
    worker.cancel()
