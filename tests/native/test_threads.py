"""Publishing from many threads while pumps run."""

import asyncio
import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest


@pytest.mark.parametrize("workers", [1, 3])
async def test_each_message_is_handled_once(rig, workers, refused):
    mailbox = rig.mailbox(capacity=1_000_000)
    counts = Counter()
    threads, each = 4, 5000
    finished = asyncio.Event()

    async def count(message):
        counts[message.payload] += 1
        if message.payload[1] % 1000 == 0:
            await asyncio.sleep(0)
        if counts.total() == threads * each:
            finished.set()

    tasks = [rig.start(mailbox, count) for _ in range(workers)]

    def publish(thread):
        for number in range(each):
            rig.router.publish_nowait("jobs", (thread, number), priority=number % 4)

    running = [threading.Thread(target=publish, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    await finished.wait()
    await asyncio.to_thread(lambda: [thread.join() for thread in running])
    mailbox.close()
    await asyncio.gather(*tasks)
    assert len(counts) == threads * each
    assert set(counts.values()) == {1}
    assert mailbox.stats().acked == threads * each


async def test_an_idle_pump_is_woken_from_a_thread_every_time(rig):
    mailbox = rig.mailbox()
    handled = asyncio.Queue()
    task = rig.start(mailbox, handled.put)
    for number in range(300):
        await asyncio.to_thread(rig.router.publish_nowait, "jobs", number)
        assert (await handled.get()).payload == number
    mailbox.close()
    await task


def test_a_publisher_survives_the_loop_of_its_consumer(rig, refused):
    mailbox = rig.mailbox()
    loop = asyncio.new_event_loop()
    tasks = []

    async def begin():
        tasks.append(rig.start(mailbox, print))
        await asyncio.sleep(0)

    loop.run_until_complete(begin())
    loop.close()
    with pytest.raises(refused) as caught:
        rig.router.publish_nowait("jobs", 1)
    assert caught.value.kind == "loop_closed"
    with ThreadPoolExecutor(1) as thread, pytest.raises(refused):
        thread.submit(rig.router.publish_nowait, "jobs", 2).result()
    assert mailbox.depth() == 0

    async def second():
        handled = []
        task = rig.start(mailbox, lambda message: handled.append(message.payload))
        mailbox.close()
        await task
        return handled

    assert asyncio.run(second()) == []
    tasks[0]._log_destroy_pending = False


async def test_waiting_publishers_of_two_loops_get_their_slots_in_order(rig):
    mailbox = rig.mailbox(capacity=1)
    await rig.router.publish("jobs", 0)
    waits = threading.Event()

    async def elsewhere():
        publish = asyncio.ensure_future(rig.router.publish("jobs", 1))
        await asyncio.sleep(0)
        waits.set()
        await publish

    other = asyncio.get_running_loop().run_in_executor(None, asyncio.run, elsewhere())
    await asyncio.to_thread(waits.wait)
    mine = asyncio.ensure_future(rig.router.publish("jobs", 2))
    await asyncio.sleep(0)
    handled = []
    task = rig.start(mailbox, lambda message: handled.append(message.payload))
    await asyncio.gather(other, mine)
    mailbox.close()
    await task
    assert handled == [0, 1, 2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_has_ids_of_its_own(rig):
    before = rig.router.next_id()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, (rig.router.id_prefix + rig.router.next_id()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    text = os.read(reader, 100).decode()
    os.close(reader)
    os.close(writer)
    prefix, identity = text[:16], text[16:]
    assert prefix != rig.router.id_prefix
    assert identity[:16] == prefix
    assert int(identity[16:], 16) == int(before[16:], 16) + 1, "what it inherited meets no other with its count"
