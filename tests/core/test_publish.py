"""Router.publish and publish_nowait: one message into the mailboxes of its channel."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

OPTIONS = {
    "priority": 7,
    "headers": {"h": "v"},
    "key": "k",
    "correlation_id": "c",
    "reply_to": "_inbox.1",
    "content_type": "text/plain",
    "message_id": "given",
}


async def publish(rig, how, *args, **options):
    if how == "publish":
        return await rig.publish(*args, **options)
    return rig.publish_nowait(*args, **options)


both = pytest.mark.parametrize("how", ["publish", "publish_nowait"])


@both
async def test_a_message_arrives_as_it_was_published(rig, how):
    mailbox = rig.mailbox("jobs")
    payload = object()
    identity = await publish(rig, how, "jobs", payload)
    message = mailbox.take()
    assert message.payload is payload
    assert (message.id, message.channel, message.priority, message.attempt) == (identity, "jobs", 50, 1)
    assert message.timestamp_ns == rig.clock.time_ns()
    assert dict(message.headers) == {}
    for name in ("key", "correlation_id", "reply_to", "expires_at_ns", "content_type", "delivery"):
        assert getattr(message, name) is None
    assert (message.settled, message.lease_lost) == (False, False)


@both
async def test_every_option_arrives(rig, how):
    mailbox = rig.mailbox("jobs")
    assert await publish(rig, how, "jobs", None, **OPTIONS, ttl=2.5) == "given"
    message = mailbox.take()
    given = {name: getattr(message, name) for name in OPTIONS if name not in {"headers", "message_id"}}
    assert given == {name: value for name, value in OPTIONS.items() if name not in {"headers", "message_id"}}
    assert (dict(message.headers), message.id) == ({"h": "v"}, "given")
    assert message.expires_at_ns == rig.clock.time_ns() + 2_500_000_000


@both
@pytest.mark.parametrize("name", [*OPTIONS, "ttl", "delay", "not_before", "idempotency_key"])
async def test_none_is_the_same_as_not_given(rig, how, name):
    mailbox = rig.mailbox("jobs")
    assert len(await publish(rig, how, "jobs", None, **{name: None})) == 32
    assert mailbox.take().priority == 50


@both
async def test_an_unknown_option_is_refused(rig, how):
    mailbox = rig.mailbox("jobs")
    for _ in range(3):
        with pytest.raises(TypeError, match="colour"):
            await publish(rig, how, "jobs", None, colour="red")
    with pytest.raises(TypeError):
        await publish(rig, how, "jobs", None, 7)
    with pytest.raises(TypeError):
        await publish(rig, how, "jobs")
    assert mailbox.depth() == 0


@both
async def test_channel_and_payload_may_be_keywords(rig, how):
    mailbox = rig.mailbox("jobs")
    await publish(rig, how, channel="jobs", payload=1)
    await publish(rig, how, "jobs", payload=2, priority=60)
    assert [mailbox.take().payload for _ in range(2)] == [1, 2]


@both
async def test_a_later_change_of_the_headers_does_not_reach_the_message(rig, how):
    mailbox = rig.mailbox("jobs")
    headers = {"h": "v"}
    await publish(rig, how, "jobs", None, headers=headers)
    headers["h"] = "w"
    assert mailbox.take().headers["h"] == "v"


async def test_a_publish_enters_before_it_is_awaited(rig):
    mailbox = rig.mailbox("jobs")
    for number in range(300):
        awaitable = rig.publish("jobs", number)
        message = mailbox.take()
        assert message.payload == number
        assert await awaitable == message.id
        mailbox.ack(message)


async def test_a_publish_that_nobody_awaits_has_happened_without_a_warning(rig):
    mailbox = rig.mailbox("jobs")
    for _ in range(50):
        rig.publish("jobs", None)
    gc.collect()
    assert mailbox.depth() == 50


async def test_a_publish_can_be_a_task_or_gathered_or_timed(rig):
    rig.mailbox("jobs")
    identities = await asyncio.gather(*(rig.publish("jobs", number) for number in range(10)))
    identities.append(await asyncio.wait_for(rig.publish("jobs", None), 1))
    identities.append(await asyncio.ensure_future(rig.publish("jobs", None)))
    assert len(set(identities)) == 12


@both
@pytest.mark.parametrize("priority", [0, 255, True])
async def test_priorities_go_from_0_to_255(rig, how, priority):
    mailbox = rig.mailbox("jobs")
    for _ in range(2):
        await publish(rig, how, "jobs", None, priority=priority)
        assert mailbox.take().priority == priority


@both
@pytest.mark.parametrize("priority", [-1, 256, 10**6])
async def test_any_other_priority_is_refused(rig, refused, how, priority):
    mailbox = rig.mailbox("jobs")
    await rig.publish("jobs", None)
    with pytest.raises(refused) as caught:
        await publish(rig, how, "jobs", None, priority=priority)
    assert (caught.value.kind, caught.value.channel, caught.value.detail) == ("priority", "jobs", priority)
    assert mailbox.depth() == 1


@both
@pytest.mark.parametrize("priority", [1.5, "high"])
async def test_a_priority_is_an_integer(rig, how, priority):
    rig.mailbox("jobs")
    await rig.publish("jobs", None)
    with pytest.raises(TypeError):
        await publish(rig, how, "jobs", None, priority=priority)


@both
@pytest.mark.parametrize("priority", [-(2**63), -1, 256, 2**63 - 1])
async def test_any_rank_lifts_the_limit(make_rig, how, priority):
    rig = make_rig(any_rank=True)
    mailbox = rig.mailbox("jobs")
    await rig.publish("jobs", None)
    await publish(rig, how, "jobs", None, priority=priority)
    assert mailbox.depths() == {50: 1, priority: 1}
    rig.router.add(rig.core.Route(rig.router, "more", priority=priority))


@both
async def test_nobody_listens_is_counted_and_no_error(rig, how):
    assert len(await publish(rig, how, "jobs", None)) == 32
    assert rig.route("jobs").stats()[:4] == (0, 1, 0, 0)


@both
async def test_a_mandatory_publish_needs_a_subscriber(rig, refused, how):
    with pytest.raises(refused) as caught:
        await publish(rig, how, "jobs", None, mandatory=True)
    assert (caught.value.kind, caught.value.channel) == ("no_subscribers", "jobs")
    mailbox = rig.mailbox("jobs")
    for _ in range(2):
        assert await publish(rig, how, "jobs", None, mandatory=True)
    assert mailbox.depth() == 2


@both
async def test_a_closed_mailbox_is_no_subscriber(rig, refused, how):
    rig.mailbox("jobs").close()
    assert await publish(rig, how, "jobs", None)
    with pytest.raises(refused) as caught:
        await publish(rig, how, "jobs", None, mandatory=True)
    assert caught.value.kind == "no_subscribers"


@both
async def test_an_idempotency_key_is_refused_because_mailboxes_remember_none(rig, refused, how):
    mailbox = rig.mailbox("jobs")
    with pytest.raises(refused) as caught:
        await publish(rig, how, "jobs", None, idempotency_key="order-7")
    assert (caught.value.kind, caught.value.channel, caught.value.detail) == ("idempotency", "jobs", "order-7")
    assert mailbox.depth() == 0


@both
async def test_a_closed_router_refuses(rig, refused, how):
    mailbox = rig.mailbox("jobs")
    await rig.publish("jobs", 1)
    await rig.publish("jobs", 2)
    route = rig.route("jobs")
    rig.router.close()
    for channel in ("jobs", "unknown"):
        with pytest.raises(refused) as caught:
            await publish(rig, how, channel, None)
        assert (caught.value.kind, caught.value.channel) == ("closed", channel)
    assert rig.asked_for == ["jobs"]
    assert mailbox.depth() == 2
    assert await route.publish(3)
    assert mailbox.depth() == 3


async def test_an_error_that_is_no_exception_is_a_type_error(rig):
    router = rig.core.Router(rig.clock, missing=rig.asked_for.append, error=lambda *args: "text")
    router.add(rig.core.Route(router, "jobs"))
    with pytest.raises(TypeError):
        await router.publish("jobs", None, mandatory=True)


async def test_a_handled_message_frees_its_payload(rig, turns):
    class Payload:
        pass

    mailbox = rig.mailbox("jobs")
    task = rig.start(mailbox, lambda message: None)
    payload = Payload()
    seen = weakref.ref(payload)
    await rig.publish("jobs", payload)
    await rig.publish("jobs", "the next one")
    del payload
    await turns()
    mailbox.close()
    await task
    gc.collect()
    assert seen() is None


def test_everything_is_freed_with_the_router(core):
    clock = core.Clock()
    router = core.Router(clock, missing=print, error=RuntimeError)
    router.add(core.Route(router, "jobs"))
    mailbox = core.Mailbox(clock, object(), capacity=10)
    router.attach("jobs", mailbox)
    payload = type("Payload", (), {})()
    payload.router = router
    router.publish_nowait("jobs", payload)
    seen = [weakref.ref(each) for each in (router, mailbox, payload)]
    del router, mailbox, payload
    gc.collect()
    assert [each() for each in seen] == [None] * 3
