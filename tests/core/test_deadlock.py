"""A handler that publishes into the full mailbox that it alone drains gets an error, not a deadlock."""

from __future__ import annotations

import asyncio

import pytest


def caught(rig, refused, kinds):
    async def handler(message):
        try:
            await rig.publish("jobs", ("again", message.payload))
        except refused as error:
            kinds.append((error.kind, error.channel, error.detail.payload))

    return handler


async def test_publishing_into_the_full_mailbox_of_the_only_worker_is_an_error(rig, refused, soon):
    mailbox = rig.mailbox("jobs", capacity=1)
    kinds = []
    task = rig.start(mailbox, caught(rig, refused, kinds))
    await rig.publish("jobs", 1)
    await rig.publish("jobs", 2)
    mailbox.close()
    await soon(task)
    assert kinds[0] == ("deadlock", "jobs", ("again", 1))
    assert rig.failures == []


async def test_it_is_an_error_when_every_worker_would_wait(rig, refused, turns, soon):
    mailbox = rig.mailbox("jobs", capacity=3)
    kinds = []
    gate = asyncio.Event()

    async def handler(message):
        await gate.wait()
        await caught(rig, refused, kinds)(message)

    for number in range(3):
        rig.publish_nowait("jobs", number)
    tasks = [rig.start(mailbox, handler) for _ in range(2)]
    await turns()
    gate.set()
    await turns(20)
    mailbox.close()
    await soon(asyncio.gather(*tasks))
    assert [kind for kind, _, _ in kinds][:1] == ["deadlock"]
    assert mailbox.stats().in_flight == 0


async def test_it_is_an_error_when_the_handlers_own_messages_hold_every_slot(rig, refused, turns, soon):
    mailbox = rig.mailbox("jobs", capacity=1)
    kinds = []
    tasks = [rig.start(mailbox, caught(rig, refused, kinds)) for _ in range(3)]
    await turns()
    await rig.publish("jobs", 1)
    await turns(10)
    mailbox.close()
    await soon(asyncio.gather(*tasks))
    assert kinds == [("deadlock", "jobs", ("again", 1))]


async def test_it_is_no_error_while_another_worker_can_make_room(rig, refused, turns, soon):
    mailbox = rig.mailbox("jobs", capacity=2)
    kinds = []
    gate = asyncio.Event()

    async def handler(message):
        if message.payload == "publisher":
            await caught(rig, refused, kinds)(message)
        else:
            await gate.wait()

    tasks = [rig.start(mailbox, handler) for _ in range(2)]
    await rig.publish("jobs", "publisher")
    await rig.publish("jobs", "worker")
    await turns()
    assert kinds == []
    gate.set()
    await turns()
    mailbox.close()
    await soon(asyncio.gather(*tasks))
    assert kinds == []
    assert mailbox.stats().acked == 3


async def test_it_is_no_error_for_a_task_that_the_handler_started(rig, refused, turns, soon):
    mailbox = rig.mailbox("jobs", capacity=1)
    started = []

    async def handler(message):
        if message.payload == "first":
            started.append(asyncio.create_task(publishing()))
            await asyncio.sleep(0)

    async def publishing():
        return await rig.publish("jobs", "from a task")

    task = rig.start(mailbox, handler)
    await rig.publish("jobs", "first")
    await turns(10)
    assert len(await soon(started[0])) == 32
    mailbox.close()
    await soon(task)
    assert mailbox.stats().acked == 2


async def test_it_is_no_error_for_the_full_mailbox_of_somebody_else(rig, turns, soon):
    mailbox, other = rig.mailbox("jobs"), rig.mailbox("other", capacity=1)
    await rig.publish("other", 0)
    task = rig.start(mailbox, lambda message: rig.publish("other", 1))
    await rig.publish("jobs", None)
    await turns()
    assert other.stats().waiting == 1
    other.ack(other.take())
    mailbox.close()
    await soon(task)
    assert other.take().payload == 1


async def test_an_unhandled_deadlock_fails_the_message(rig, refused, soon):
    mailbox = rig.mailbox("jobs", capacity=1)
    await rig.publish("jobs", 1)
    task = rig.start(mailbox, lambda message: rig.publish("jobs", 2))
    await asyncio.sleep(0)
    mailbox.close()
    await soon(task)
    [(message, error)] = rig.failures
    assert (message.payload, error.kind) == (1, "deadlock")
    assert rig.route("jobs").stats().refused == 1


async def test_in_a_fan_out_the_slots_that_were_taken_are_given_back(rig, refused, soon, turns):
    first, own = rig.mailbox("jobs", "other", capacity=1), rig.mailbox("jobs", "own", capacity=1)
    task = rig.start(own, lambda message: rig.publish("jobs", 2))
    await rig.publish("own", 1)
    await turns()
    [(_, error)] = rig.failures
    assert error.kind == "deadlock"
    assert rig.publish_nowait("other", "there is room")
    assert first.depth() == 1
    own.close()
    await soon(task)


async def test_publish_nowait_in_a_handler_is_just_full(rig, refused, soon):
    mailbox = rig.mailbox("jobs", capacity=1)
    kinds = []

    def handler(message):
        with pytest.raises(refused) as raised:
            rig.publish_nowait("jobs", 2)
        kinds.append(raised.value.kind)

    await rig.publish("jobs", 1)
    task = rig.start(mailbox, handler)
    await asyncio.sleep(0)
    mailbox.close()
    await soon(task)
    assert kinds == ["full"]
