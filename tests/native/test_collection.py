"""Cycles through the native objects are found by the garbage collector."""

import asyncio
import weakref

import pytest


def test_a_mailbox_and_its_settler(core, collected):
    class Settler:
        pass

    settler = Settler()
    settler.mailbox = core.Mailbox(core.Clock(), settler, capacity=1)
    references = weakref.ref(settler), weakref.ref(settler.mailbox)
    del settler
    assert collected(*references)


def test_a_router_its_routes_and_their_paths(rig, collected):
    router = rig.router
    mailbox = rig.mailbox()

    async def path(payload, **options):
        return await router.publish("jobs", mailbox)

    router.publish_nowait("jobs", 1)
    router.routes()["jobs"].configure(priority=50, ttl_ns=None, path=path)
    references = weakref.ref(router), weakref.ref(mailbox), weakref.ref(router.routes()["jobs"])
    rig.router = router = mailbox = path = None
    assert collected(*references)


@pytest.mark.parametrize("way", ["queued", "parked", "delayed", "held", "retried", "offered", "released"])
def test_queued_payloads_that_refer_to_their_mailbox(rig, payload, collected, way):
    mailbox = rig.mailbox()
    item = payload()
    item.mailbox = mailbox
    if way == "parked":
        rig.router.publish_nowait("jobs", None, key="k")
        rig.router.publish_nowait("jobs", item, key="k")
        assert mailbox.take().payload is None
        assert mailbox.take() is None
    elif way == "offered":
        mailbox.offer(rig.core.Message("jobs", item, id="offered"))
    else:
        options = {"delayed": {"delay": 60.0}, "held": {"not_before": 9e9}}.get(way, {})
        rig.router.publish_nowait("jobs", item, **options)
    if way == "retried":
        mailbox.retry(mailbox.take(), 60_000_000_000)
    elif way == "released":
        mailbox.release(mailbox.take())
    assert mailbox.depth() == 1
    rig.router.detach("jobs", mailbox)
    references = weakref.ref(item), weakref.ref(mailbox)
    del item, mailbox
    assert collected(*references)


async def test_a_pump_and_the_handler_that_knows_it(rig, collected):
    mailbox = rig.mailbox()
    pumps = []

    async def handler(message):
        pumps.append(pump)
        await asyncio.get_running_loop().create_future()

    pump = rig.pump(mailbox, handler)
    references = [weakref.ref(pump)]
    rig.router.publish_nowait("jobs", 1)
    pump.send(None)
    assert pumps == [pump]
    assert mailbox.stats().in_flight == 1
    pump = pumps = handler = None
    assert collected(*references)
    assert mailbox.depth() == 1
    assert mailbox.stats().in_flight == 0


async def test_a_waiting_publish_gives_its_place_back(rig, collected):
    mailbox = rig.mailbox(capacity=1)
    await rig.router.publish("jobs", 1)
    waiting = rig.router.publish("jobs", 2)
    assert mailbox.stats().waiting == 1
    with pytest.warns(RuntimeWarning, match="never awaited"):
        del waiting
    assert mailbox.stats().waiting == 0


async def test_a_waiting_publish_in_a_cycle(rig, payload, collected):
    mailbox = rig.mailbox(capacity=1)
    await rig.router.publish("jobs", 1)
    item = payload()
    item.publish = rig.router.publish("jobs", item)
    item.future = item.publish.send(None)
    reference = weakref.ref(item)
    del item
    assert collected(reference)
    assert mailbox.stats().waiting == 0


async def test_many_that_wait_in_a_cycle(rig, payload, collected):
    mailbox = rig.mailbox(capacity=1)
    item = payload()
    item.many = rig.router.publish_many([("jobs", item), ("jobs", item)])
    item.future = item.many.send(None)
    reference = weakref.ref(item)
    mailbox.clear()
    assert mailbox.stats().waiting == 0
    del item
    mailbox.clear()
    assert collected(reference)


async def test_ready_in_a_cycle(rig, payload, collected):
    mailbox = rig.mailbox()
    item = payload()
    item.ready = mailbox.ready()
    item.future = item.ready.send(None)
    item.future.add_done_callback(item.__eq__)
    reference = weakref.ref(item)
    del item
    assert collected(reference)
    await rig.router.publish("jobs", 1)


async def test_a_pump_that_never_ran(rig, collected):
    mailbox = rig.mailbox()
    pump = rig.pump(mailbox, print)
    reference = weakref.ref(pump)
    del pump
    assert collected(reference)
    await rig.router.publish("jobs", 1)
