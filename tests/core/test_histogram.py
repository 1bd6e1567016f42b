"""Histograms: their bounds, and what is measured."""

from __future__ import annotations

import asyncio


def test_the_bounds_are_three_to_a_decade_from_100_ns_to_10_s(core):
    bounds = core.HISTOGRAM_BOUNDS_NS
    assert bounds[:4] == (100, 250, 500, 1000)
    assert bounds[-1] == 10_000_000_000
    assert len(bounds) == 25
    assert list(bounds) == sorted(bounds)


def test_an_empty_histogram_has_a_bucket_for_every_bound_and_one_above_them(rig):
    histogram = rig.mailbox().stats().wait
    assert histogram == (0, 0, (0,) * (len(rig.core.HISTOGRAM_BOUNDS_NS) + 1))


def measured(histogram):
    assert sum(histogram.buckets) == histogram.count
    return [(index, count) for index, count in enumerate(histogram.buckets) if count]


async def test_the_wait_of_a_message_that_finds_an_idle_worker_is_measured(rig, turns):
    mailbox = rig.mailbox("jobs")
    task = rig.start(mailbox, lambda message: None)
    await turns()
    for _ in range(300):
        await rig.publish("jobs", None)
        await turns(2)
    mailbox.close()
    await task
    stats = mailbox.stats()
    assert 1 <= stats.wait.count <= 300
    assert 1 <= stats.handle.count <= 300
    assert measured(stats.wait)


async def test_waits_are_measured_from_publish_to_handler_and_handlers_by_their_own_time(rig):
    mailbox = rig.mailbox("jobs", capacity=1000)
    rig.publish_nowait("jobs", None)
    for _ in range(299):
        rig.publish_nowait("jobs", None)
    rig.clock.advance(3_000_000)

    def handler(message):
        rig.clock.advance(30)

    mailbox.close()
    await rig.start(mailbox, handler)
    stats = mailbox.stats()
    assert stats.wait.count >= 1
    assert stats.wait.sum_ns >= 3_000_000 * stats.wait.count
    assert stats.handle.sum_ns == 30 * stats.handle.count
    assert stats.handle.buckets[0] == stats.handle.count


async def test_the_wait_of_a_delayed_message_begins_when_it_is_due(rig):
    mailbox = rig.mailbox("jobs", capacity=1000)
    for _ in range(300):
        await rig.publish("jobs", None, delay=10)
    rig.clock.advance(10_000_000_000)
    mailbox.promote()
    rig.clock.advance(400)
    mailbox.close()
    await rig.start(mailbox, lambda message: None)
    wait = mailbox.stats().wait
    assert wait.count >= 1
    assert wait.sum_ns == 400 * wait.count


async def test_publishing_is_measured_from_the_call_to_the_entry(rig):
    rig.mailbox("jobs", capacity=1000)
    for _ in range(300):
        await rig.publish("jobs", None)
    publish = rig.route("jobs").stats().publish
    assert 1 <= publish.count <= 300
    assert publish.sum_ns == 0


async def test_a_snapshot_does_not_change(rig, turns):
    mailbox = rig.mailbox("jobs")
    before = mailbox.stats()
    rig.publish_nowait("jobs", None)
    assert before.queued == 0
    assert mailbox.stats().queued == 1
    await asyncio.sleep(0)
