"""Reference counts and recycled memory."""

import asyncio
import sys
import weakref
from contextlib import suppress

import pytest


async def ignore(message):
    pass


async def test_a_handled_payload_is_let_go(rig, payload):
    mailbox = rig.mailbox()
    task = rig.start(mailbox, ignore)
    item = payload()
    alive = weakref.ref(item)
    before = sys.getrefcount(item)
    for options in ({}, {"key": "k"}, {"headers": {"a": "b"}, "ttl": 60.0, "message_id": "m"}):
        await rig.router.publish("jobs", item, **options)
    await rig.router.publish_many([("jobs", item), ("jobs", item, 3, {"key": "k"})])
    mailbox.close()
    await task
    assert mailbox.stats().acked == 5
    assert sys.getrefcount(item) == before
    del item
    assert alive() is None


async def test_every_way_out_of_a_mailbox_lets_go(rig, payload, refused):
    item = payload()
    before = sys.getrefcount(item)
    for overflow in ("reject", "drop_new", "drop_old", "block"):
        mailbox = rig.mailbox(overflow, capacity=1, overflow=overflow)
        rig.router.publish_nowait(overflow, item)
        with suppress(refused):
            rig.router.publish_nowait(overflow, item)
        taken = mailbox.take()
        mailbox.retry(taken, 0)
        mailbox.release(mailbox.take())
        mailbox.clear()
        mailbox.offer(rig.core.Message(overflow, item, id="offered"))
        mailbox.take_relaxed(-1)
    rig.router.publish_nowait("nobody", item)
    del taken
    assert sys.getrefcount(item) == before


async def test_failures_let_go(rig, payload):
    mailbox = rig.mailbox()

    async def fail(message):
        raise ValueError

    task = rig.start(mailbox, fail)
    item = payload()
    before = sys.getrefcount(item)
    for _ in range(3):
        await rig.router.publish("jobs", item)
    mailbox.close()
    await task
    assert len(rig.failures) == 3
    rig.failures.clear()
    assert sys.getrefcount(item) == before


async def test_callbacks_are_not_leaked(rig):
    mailbox = rig.mailbox()

    async def handler(message):
        await asyncio.sleep(0)

    before = sys.getrefcount(handler)
    task = rig.start(mailbox, handler, timeout=60.0)
    for number in range(100):
        await rig.router.publish("jobs", number)
    mailbox.close()
    await task
    del task
    await asyncio.sleep(0)  # what runs now was called with the task
    assert sys.getrefcount(handler) == before


async def test_a_kept_message_is_not_overwritten_by_its_successors(rig):
    mailbox = rig.mailbox()
    kept = []

    async def keep(message):
        if message.payload % 7 == 0:
            kept.append(message)

    task = rig.start(mailbox, keep)
    ids = [await rig.router.publish("jobs", number, headers={"n": str(number)}) for number in range(700)]
    mailbox.close()
    await task
    assert [message.payload for message in kept] == list(range(0, 700, 7))
    assert [message.id for message in kept] == ids[::7]
    assert [message.headers["n"] for message in kept] == [str(number) for number in range(0, 700, 7)]


async def test_kept_ids_do_not_change_when_dropped_ones_are_recycled(rig):
    mailbox = rig.mailbox(overflow="drop_old", capacity=10)
    kept = []
    for number in range(2000):
        identity = await rig.router.publish("jobs", number)
        if number % 3 == 0:
            kept.append((identity, str(identity).encode().decode(), hash(identity)))
        del identity
    assert len({identity for identity, _, _ in kept}) == len(kept)
    assert all(identity == copy and hash(identity) == before == hash(copy) for identity, copy, before in kept)
    assert mailbox.depth() == 10


async def test_an_interned_id_is_not_recycled(rig):
    rig.mailbox()
    first = sys.intern(await rig.router.publish("jobs", 1))
    text = "".join(first)
    address = id(first)
    del first
    for number in range(300):
        await rig.router.publish("jobs", number)
    again = sys.intern(text)
    assert again == text
    assert hash(again) == hash("".join(list(text)))
    assert isinstance(address, int)


async def test_awaiting_a_publish_twice_gives_the_same_id(rig):
    rig.mailbox()
    published = rig.router.publish("jobs", 1)
    assert await published == await published


async def test_a_result_of_a_finished_publish_travels_by_exception_too(rig):
    rig.mailbox()
    published = rig.router.publish("jobs", 1)
    stops = []
    for _ in range(2):
        with pytest.raises(StopIteration) as caught:
            published.send(None)
        stops.append(caught.value)
    identity = await rig.router.publish("jobs", 2)
    assert stops[0] is not stops[1]
    assert stops[0].value == stops[1].value != identity
