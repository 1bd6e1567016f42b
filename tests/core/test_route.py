"""Route: the publish path of one channel."""

from __future__ import annotations

import asyncio

import pytest


async def test_an_unknown_channel_is_asked_for_once(rig):
    rig.mailbox("jobs")
    for _ in range(3):
        await rig.publish("jobs", None)
    rig.publish_nowait("jobs", None)
    await rig.publish("other", None)
    assert rig.asked_for == ["jobs", "other"]
    assert set(rig.router.routes()) == {"jobs", "other"}


async def test_a_channel_can_be_refused_by_missing(make_rig):
    rig = make_rig()

    def missing(channel):
        raise LookupError(f"no {channel}")

    router = rig.core.Router(rig.clock, missing=missing, error=RuntimeError)
    with pytest.raises(LookupError, match="no jobs"):
        await router.publish("jobs", None)
    with pytest.raises(LookupError, match="no jobs"):
        router.publish_nowait("jobs", None)
    assert router.routes() == {}


async def test_missing_may_add_the_route_itself(rig):
    made = []

    def missing(channel):
        route = rig.core.Route(router, channel, priority=3)
        made.append(route)
        router.add(route)
        return route

    router = rig.core.Router(rig.clock, missing=missing, error=RuntimeError)
    mailbox = rig.mailbox()
    router.attach("jobs", mailbox)
    for _ in range(2):
        await router.publish("jobs", None)
    assert router.routes() == {"jobs": made[0]}
    assert len(made) == 1
    assert mailbox.take().priority == 3


async def test_an_added_route_is_not_asked_for(rig):
    mailbox = rig.mailbox("jobs")
    route = rig.core.Route(rig.router, "jobs", priority=9)
    rig.router.add(route)
    assert route.channel == "jobs"
    assert rig.router.routes() == {"jobs": route}
    await rig.publish("jobs", None)
    assert rig.asked_for == []
    assert mailbox.take().priority == 9


async def test_a_removed_route_is_asked_for_again(rig):
    rig.mailbox("jobs")
    await rig.publish("jobs", None)
    await rig.publish("jobs", None)
    rig.router.remove("jobs")
    assert rig.router.routes() == {}
    await rig.publish("jobs", None)
    assert rig.asked_for == ["jobs", "jobs"]
    assert rig.route("jobs").stats().published == 1


def test_removing_an_unknown_route_is_harmless(rig):
    rig.router.remove("jobs")
    assert rig.router.routes() == {}


async def test_the_table_of_routes_is_a_copy(rig):
    await rig.publish("jobs", None)
    rig.router.routes().clear()
    assert set(rig.router.routes()) == {"jobs"}


async def test_the_defaults_of_the_route_apply_and_options_override_them(rig):
    mailbox = rig.mailbox("jobs")
    rig.router.add(rig.core.Route(rig.router, "jobs", priority=3, ttl_ns=5_000_000_000))
    for how in (rig.publish_nowait, rig.route("jobs").publish):
        how("jobs", None) if how == rig.publish_nowait else await how(None)
        message = mailbox.take()
        assert (message.priority, message.expires_at_ns) == (3, rig.clock.time_ns() + 5_000_000_000)
    await rig.publish("jobs", None, priority=4, ttl=1)
    message = mailbox.take()
    assert (message.priority, message.expires_at_ns) == (4, rig.clock.time_ns() + 1_000_000_000)


async def test_configure_swaps_all_three_at_once(rig):
    mailbox = rig.mailbox("jobs")
    await rig.publish("jobs", None)
    await rig.publish("jobs", None)
    seen = []

    async def path(payload, **options):
        seen.append((payload, options))
        return await rig.route("jobs").publish(("wrapped", payload), **options)

    rig.route("jobs").configure(priority=7, ttl_ns=1_000_000_000, path=path)
    assert len(mailbox.clear()) == 2
    await rig.publish("jobs", "x", headers={"h": "v"}, priority=8)
    await rig.publish("jobs", "y")
    assert seen == [("x", {"headers": {"h": "v"}, "priority": 8}), ("y", {})]
    first, second = mailbox.take(), mailbox.take()
    assert {first.payload, second.payload} == {("wrapped", "x"), ("wrapped", "y")}
    assert sorted((first.priority, second.priority)) == [7, 8]
    assert first.expires_at_ns == rig.clock.time_ns() + 1_000_000_000
    rig.route("jobs").configure(priority=1, ttl_ns=None, path=None)
    await rig.publish("jobs", "z")
    message = mailbox.take()
    assert (message.payload, message.priority, message.expires_at_ns) == ("z", 1, None)
    assert len(seen) == 2


async def test_a_router_answers_what_the_path_answers(rig):
    async def path(payload, **options):
        return None

    rig.router.add(rig.core.Route(rig.router, "jobs", path=path))
    assert await rig.publish("jobs", None) is None


async def test_the_path_s_errors_reach_the_publisher(rig):
    async def path(payload, **options):
        raise LookupError("middleware")

    rig.router.add(rig.core.Route(rig.router, "jobs", path=path))
    with pytest.raises(LookupError, match="middleware"):
        await rig.publish("jobs", None)


async def test_route_publish_goes_straight_to_the_mailboxes(rig):
    mailbox = rig.mailbox("jobs")

    def path(payload, **options):
        raise AssertionError("the path was taken")

    route = rig.core.Route(rig.router, "jobs", path=path)
    rig.router.add(route)
    identity = await route.publish(
        "x", priority=2, headers={"h": "v"}, key="k", correlation_id="c", reply_to="r", content_type="t"
    )
    message = mailbox.take()
    assert (message.id, message.payload, message.priority, message.key) == (identity, "x", 2, "k")
    assert (message.correlation_id, message.reply_to, message.content_type) == ("c", "r", "t")


async def test_publish_nowait_goes_past_the_path(rig):
    mailbox = rig.mailbox("jobs")
    rig.router.add(rig.core.Route(rig.router, "jobs", path=lambda payload, **options: None))
    assert rig.publish_nowait("jobs", "x")
    assert mailbox.take().payload == "x"


async def test_a_route_that_is_not_in_the_table_publishes_too(rig, drain):
    mailbox = rig.mailbox("jobs")
    route = rig.core.Route(rig.router, "jobs")
    await route.publish(1)
    await route.publish(2)
    assert rig.router.routes() == {}
    assert drain(mailbox) == [1, 2]
    assert route.stats().published == 2


async def test_statistics_count_how_publishes_ended(rig, refused):
    await rig.publish("jobs", None)
    with pytest.raises(refused):
        await rig.publish("jobs", None, mandatory=True)
    mailbox = rig.mailbox("jobs", capacity=1, overflow="drop_new")
    await rig.publish("jobs", None)
    await rig.publish("jobs", None)
    mailbox.configure(overflow="reject")
    with pytest.raises(refused):
        await rig.publish("jobs", None)
    stats = rig.route("jobs").stats()
    assert (stats.published, stats.unrouted, stats.dropped, stats.refused) == (1, 1, 1, 2)


async def test_statistics_belong_to_one_channel(rig):
    rig.mailbox(">")
    await asyncio.gather(*(rig.publish(name, None) for name in ("a", "b", "b")))
    assert [rig.route(name).stats().published for name in "ab"] == [1, 2]
    assert rig.route("b").stats().published == 2
    assert rig.router.routes()["a"].channel == "a"
