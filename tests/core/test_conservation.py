"""Whatever happens, every message that was accepted is somewhere, once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest


@pytest.mark.parametrize("seed", range(6))
async def test_every_accepted_message_is_handled_exactly_once_if_nothing_fails(rig, seed, soon):
    rng = random.Random(seed)
    mailboxes = [rig.mailbox("jobs", capacity=rng.choice([1, 2, 5, 50])) for _ in range(rng.choice([1, 3]))]
    handled = [Counter() for _ in mailboxes]
    tasks = []
    for mailbox, counter in zip(mailboxes, handled, strict=True):

        async def handler(message, counter=counter):
            for _ in range(rng.choice([0, 0, 1, 3])):
                await asyncio.sleep(0)
            counter[message.id] += 1

        tasks += [rig.start(mailbox, handler, batch=0) for _ in range(rng.choice([1, 2, 4]))]
    accepted = []

    async def produce():
        for _ in range(60):
            options = {"priority": rng.randrange(4), "key": rng.choice([None, None, "a", "b"])}
            accepted.append(await rig.publish("jobs", None, **options))
            if rng.random() < 0.2:
                await asyncio.sleep(0)

    await soon(asyncio.gather(*(produce() for _ in range(5))))
    for mailbox in mailboxes:
        mailbox.close()
    await soon(asyncio.gather(*tasks))
    assert len(set(accepted)) == 300
    for counter in handled:
        assert counter == dict.fromkeys(accepted, 1)


@pytest.mark.parametrize("seed", range(6))
async def test_failures_retries_releases_and_cancelled_workers_lose_nothing(rig, seed, soon):
    rng = random.Random(seed)
    mailbox = rig.mailbox("jobs", capacity=10, hold_keys=rng.choice([True, False]))
    done = Counter()
    running = set()

    async def handler(message):
        for _ in range(rng.choice([0, 0, 1, 2])):
            await asyncio.sleep(0)
        if rng.random() < 0.2:
            raise LookupError
        if rng.random() < 0.1:
            await message.release()
        elif rng.random() < 0.1:
            await message.nack()
        else:
            done[message.payload] += 1

    def failed(message, error):
        if rng.random() < 0.5:
            mailbox.retry(message, 0)
        else:
            mailbox.release(message)

    def start(_=None):
        if sum(done.values()) < 300:
            task = rig.start(mailbox, handler, failed=failed)
            running.add(task)
            task.add_done_callback(running.discard)
            task.add_done_callback(start)

    for _ in range(3):
        start()

    async def produce():
        for number in range(300):
            await rig.publish("jobs", number, key=rng.choice([None, "a", "b"]))

    async def disturb():
        while sum(done.values()) < 300:
            await asyncio.sleep(0)
            if rng.random() < 0.1:
                rng.choice(sorted(running, key=id)).cancel()

    await asyncio.wait_for(asyncio.gather(produce(), disturb()), 30)
    assert done == dict.fromkeys(range(300), 1)
    mailbox.close()
    if running:
        await soon(asyncio.wait(set(running)))
    stats = mailbox.stats()
    assert stats[1:6] == (0, 0, 0, 0, 0)
    assert stats.delivered == stats.acked + stats.retried + stats.released
    assert stats.acked == 300


@pytest.mark.parametrize("seed", range(6))
async def test_cancelled_publishers_leave_no_slot_behind(rig, refused, seed, turns, soon):
    rng = random.Random(seed)
    mailboxes = [rig.mailbox(f"only.{number}", "all", "*.x", capacity=rng.choice([1, 2, 3])) for number in range(3)]
    waiting = []
    for step in range(400):
        choice = rng.random()
        if choice < 0.4:
            channel = rng.choice(["only.0", "only.1", "only.2", "all", "q.x"])
            waiting.append(asyncio.ensure_future(rig.publish(channel, step)))
        elif choice < 0.6 and waiting:
            rng.choice(waiting).cancel()
        elif choice < 0.9:
            mailbox = rng.choice(mailboxes)
            message = mailbox.take()
            if message is not None:
                mailbox.ack(message)
        else:
            await turns(1)
    while any(not each.done() for each in waiting):
        for mailbox in mailboxes:
            message = mailbox.take()
            if message is not None:
                mailbox.ack(message)
        await turns(2)
    results = await soon(asyncio.gather(*waiting, return_exceptions=True))
    assert {type(result) for result in results} <= {str, asyncio.CancelledError}
    for number, mailbox in enumerate(mailboxes):
        for message in mailbox.clear():
            assert message.settled is False
        assert mailbox.stats()[1:6] == (0, 0, 0, 0, 0)
        for _ in range(mailbox.capacity):
            rig.publish_nowait(f"only.{number}", None)
        with pytest.raises(refused):
            rig.publish_nowait(f"only.{number}", None)
