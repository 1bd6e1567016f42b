"""Pump with ``batch=n``: the handler gets lists of 1 to n messages."""

from __future__ import annotations

import asyncio

import pytest


@pytest.fixture
def mailbox(rig):
    return rig.mailbox("jobs", capacity=1000)


async def run(rig, mailbox, handler, **options):
    mailbox.close()
    await asyncio.wait_for(rig.start(mailbox, handler, **options), 5)


def payloads(messages):
    return [message.payload for message in messages]


async def test_the_handler_gets_what_is_there_up_to_n(rig, mailbox):
    for number in range(7):
        rig.publish_nowait("jobs", number)
    batches = []
    await run(rig, mailbox, lambda messages: batches.append(payloads(messages)), batch=3)
    assert batches == [[0, 1, 2], [3, 4, 5], [6]]
    assert mailbox.stats().acked == 7


async def test_it_does_not_wait_for_a_batch_to_fill(rig, mailbox, turns, soon):
    batches = []
    task = rig.start(mailbox, lambda messages: batches.append(payloads(messages)), batch=10)
    await turns()
    rig.publish_nowait("jobs", 1)
    await turns()
    assert batches == [[1]]
    mailbox.close()
    await soon(task)


async def test_a_batch_of_one_is_a_list(rig, mailbox):
    rig.publish_nowait("jobs", 1)
    batches = []
    await run(rig, mailbox, lambda messages: batches.append(type(messages)), batch=1)
    assert batches == [list]


async def test_a_batch_is_in_order_and_keys_stay_apart(rig, mailbox):
    for name, priority, key in (("c", 50, "k"), ("a", 0, None), ("d", 50, "k"), ("b", 10, None)):
        rig.publish_nowait("jobs", name, priority=priority, key=key)
    batches = []
    await run(rig, mailbox, lambda messages: batches.append(payloads(messages)), batch=10)
    assert batches == [["a", "b", "c"], ["d"]]


async def test_the_whole_batch_is_in_flight_and_current(rig, mailbox):
    for number in range(3):
        rig.publish_nowait("jobs", number)
    seen = []

    async def handler(messages):
        await asyncio.sleep(0)
        seen.append((mailbox.stats().in_flight, payloads(pump.current)))

    pump = rig.pump(mailbox, handler, batch=5)
    mailbox.close()
    await asyncio.wait_for(asyncio.get_running_loop().create_task(pump), 5)
    assert seen == [(3, [0, 1, 2])]
    assert pump.current is None


async def test_settled_is_told_of_each_message_and_replied_of_none(rig, mailbox):
    for number in range(3):
        rig.publish_nowait("jobs", number, reply_to="_inbox.1")
    told = []

    def settled(message, result):
        told.append((message.payload, result))

    await run(rig, mailbox, lambda messages: "done", batch=5, settled=settled)
    assert told == [(0, "done"), (1, "done"), (2, "done")]
    assert rig.replies == []
    assert mailbox.stats().acked == 3


async def test_messages_settled_inside_the_handler_are_left_out(rig, mailbox):
    for number in range(4):
        rig.publish_nowait("jobs", number)
    told = []

    async def handler(messages):
        await messages[1].ack()
        if messages[0].attempt == 1 and len(messages) == 4:
            await messages[2].release()

    await run(rig, mailbox, handler, batch=5, settled=lambda message, result: told.append(message.payload))
    assert told == [0, 3, 2] or told == [0, 3]
    assert mailbox.stats().in_flight == 0


async def test_failed_gets_the_list_without_what_the_handler_settled(rig, mailbox):
    for number in range(3):
        rig.publish_nowait("jobs", number)

    async def handler(messages):
        await messages[1].ack()
        raise LookupError("batch")

    await run(rig, mailbox, handler, batch=5)
    [(messages, error)] = rig.failures
    assert isinstance(messages, list)
    assert payloads(messages) == [0, 2]
    assert error.args == ("batch",)
    assert mailbox.stats().acked == 3


async def test_a_failed_batch_may_be_settled_one_by_one(rig, mailbox):
    for number in range(3):
        rig.publish_nowait("jobs", number)
    seen = []

    def handler(messages):
        seen.append([(message.payload, message.attempt) for message in messages])
        if len(seen) == 1:
            raise LookupError

    def failed(messages, error):
        mailbox.ack(messages[0])
        mailbox.retry(messages[1], 0)
        mailbox.release(messages[2])

    await run(rig, mailbox, handler, batch=5, failed=failed)
    assert seen == [[(0, 1), (1, 1), (2, 1)], [(2, 1), (1, 2)]]


async def test_a_batch_times_out_as_a_whole(rig, mailbox):
    for number in range(3):
        rig.publish_nowait("jobs", number)

    async def handler(messages):
        await asyncio.Event().wait()

    await run(rig, mailbox, handler, batch=2, timeout=0.01)
    assert [(payloads(messages), type(error)) for messages, error in rig.failures] == [
        ([0, 1], TimeoutError),
        ([2], TimeoutError),
    ]


async def test_a_stopped_batch_is_given_back_in_order(rig, mailbox, turns, soon):
    for number in range(4):
        rig.publish_nowait("jobs", number)

    async def handler(messages):
        await asyncio.Event().wait()

    pump = rig.pump(mailbox, handler, batch=3)
    task = asyncio.get_running_loop().create_task(pump)
    await turns()
    pump.stop(cancel=True)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(task)
    assert rig.failures == []
    assert payloads(mailbox.take() for _ in range(4)) == [0, 1, 2, 3]


async def test_changing_the_list_does_not_change_what_is_settled(rig, mailbox):
    for number in range(3):
        rig.publish_nowait("jobs", number)
    await run(rig, mailbox, list.clear, batch=5)
    assert mailbox.stats().acked == 3
    assert mailbox.stats().in_flight == 0
