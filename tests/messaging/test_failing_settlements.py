"""Whatever goes wrong while a failed message is settled, it is not stranded."""

from __future__ import annotations

import asyncio
import logging

import pytest

from neuralcore.messaging.retry import MAX_DELAY, Reject, Retry, RetryPolicy
from neuralcore.testing import Recorder, idle, virtual, virtual_bus
from neuralcore.testing.bus import bus_in

BOTH = pytest.mark.parametrize("url", ["native://", "memory://"])
EXACT = RetryPolicy(max_attempts=3, base=1.0, factor=1.0, cap=30.0, jitter=False)


class Unreadable(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class Surrogate(Exception):
    def __str__(self):
        return "half a character: \ud800"


class Wild(Retry):
    """Goes past what Retry looks at."""

    def __init__(self, after):
        self.after = after


@BOTH
@pytest.mark.parametrize(
    ("delay", "error"),
    [
        (-1, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        (1e300, ValueError),
        (MAX_DELAY * 2, ValueError),
        ("1", TypeError),
        (True, TypeError),
    ],
)
@virtual
async def test_a_bad_delay_is_refused_and_the_message_stays_unsettled(url, delay, error):
    raised = []

    async def act(message):
        try:
            await message.nack(delay)
        except error as refusal:
            raised.append((str(refusal), message.settled))

    async with virtual_bus(url) as bus:
        got = Recorder(act)
        await bus.subscribe("jobs", got.handle, group="g").ready()
        await bus.publish("jobs", 1)
        await idle()
        ((text, settled),) = raised
        assert "nack(delay)" in text
        assert repr(delay) in text
        assert not settled
        assert (bus.metrics().acked, bus.metrics().in_flight) == (1, 0)


@BOTH
@virtual
async def test_the_longest_delay_fits_every_clock(url):
    async with virtual_bus(url) as bus:
        got = Recorder(lambda message: message.nack(MAX_DELAY))
        await bus.subscribe("jobs", got.handle, group="g").ready()
        await bus.publish("jobs", 1)
        await asyncio.sleep(86_400)
        assert got.attempts == [1]
        assert (bus.metrics().retried, bus.metrics().in_flight) == (1, 0)
        await bus.close(drain=False)


@BOTH
@pytest.mark.parametrize("after", [1e12, 1e300, "x"])
@virtual
async def test_a_retry_that_cannot_be_made_is_an_ordinary_failed_attempt(url, after):
    def act(message):
        raise Retry(after=after)

    async with virtual_bus(url) as bus:
        got = Recorder(act)
        await bus.subscribe("jobs", got.handle, group="g", retry=EXACT).ready()
        await bus.publish("jobs", 1)
        await got.wait(3)
        assert got.gaps == [1.0, 1.0]
        await asyncio.sleep(60)
        assert (bus.metrics().dead_lettered, bus.metrics().in_flight) == (1, 0)


@BOTH
@pytest.mark.parametrize(("failure", "text"), [(Unreadable, "RuntimeError"), (Surrogate, r"half a character: \ud800")])
@virtual
async def test_an_error_whose_text_cannot_be_had_is_dead_lettered(url, failure, text):
    def act(message):
        raise failure

    async with virtual_bus(url) as bus:
        dead = Recorder()
        await bus.subscribe("_dlq.jobs", dead.handle, group="g").ready()
        await bus.subscribe("jobs", Recorder(act).handle, group="g", retry=EXACT).ready()
        await bus.publish("jobs", 1)
        (letter,) = await dead.wait(1)
        assert letter.headers["nc-dlq-error-type"] == failure.__name__
        assert text in letter.headers["nc-dlq-error"]


@BOTH
@pytest.mark.parametrize("after", [-1, 1e300, "x"])
@virtual
async def test_what_cannot_be_settled_is_tried_again_after_the_cap(url, after, caplog):
    def act(message):
        if message.payload == 1 and message.attempt == 1:
            raise Wild(after)

    bus = bus_in(asyncio.get_running_loop(), url, capacity=1)
    await bus.start()
    got = Recorder(act)
    await bus.subscribe("jobs", got.handle, group="g", retry=EXACT).ready()
    with caplog.at_level(logging.ERROR, "neuralcore"):
        await bus.publish("jobs", 1)
        await got.wait(2)
    assert got.gaps == [30.0]
    assert got.attempts == [1, 2]
    assert [record.exc_info is not None for record in caplog.records] == [True]
    await idle()
    assert (bus.metrics().in_flight, bus.metrics().retried, bus.metrics().transport["settling_failed"]) == (0, 1, 1)
    await asyncio.wait_for(bus.publish("jobs", 2), 60)
    await got.wait(3)
    report = await bus.close()
    assert (report.drained, got.payloads) == (True, [1, 1, 2])


@BOTH
@virtual
async def test_a_settlement_that_fails_while_it_is_awaited_is_tried_again_too(url, monkeypatch):
    async def broken():
        raise OSError("on purpose")

    async with virtual_bus(url) as bus:
        got = Recorder(lambda message: message.reject() if message.attempt == 1 else None)
        subscription = bus.subscribe("jobs", got.handle, group="g", retry=EXACT)
        await subscription.ready()
        monkeypatch.setattr(subscription.settlement, "_judge", lambda message, error: broken())
        await bus.publish("jobs", 1)
        await got.wait(2)
        assert got.gaps == [30.0]


@pytest.mark.parametrize("batch", [0, 3])
@virtual
async def test_dead_letters_that_wait_for_room_are_given_back_with_their_worker(batch):
    async def reject(what):
        raise Reject

    async with virtual_bus() as bus:
        gate = asyncio.Event()
        bus.subscribe("_dlq.jobs", Recorder(lambda message: gate.wait()).handle, capacity=1)
        await bus.publish_many([("jobs", None)])  # nobody listens: the channel exists
        leaving = bus.subscribe("jobs", reject, group="g", batch=batch)
        staying = Recorder()
        await bus.publish_many([("jobs", n) for n in range(3)])
        await idle()
        bus.subscribe("jobs", staying.handle, group="g")
        await leaving.unsubscribe(drain=False)
        await idle()
        assert sorted(staying.payloads) == [1, 2], "the first one's dead letter had found room"
        assert (bus.metrics().in_flight, bus.metrics().dead_lettered) == (1, 1)
        gate.set()


@virtual
async def test_a_letter_of_an_expired_message_that_cannot_be_published_is_logged_and_counted(caplog):
    async with virtual_bus() as bus:
        gate, got = asyncio.Event(), Recorder(lambda message: asyncio.sleep(10.0))
        full = Recorder(lambda message: gate.wait())
        bus.subscribe("graveyard", full.handle, capacity=1, overflow="reject")
        await bus.publish("graveyard", "in the way")
        bus.subscribe("jobs", got.handle, expired="dead_letter", dead_letter="graveyard")
        await bus.publish("jobs", "first")
        await bus.publish("jobs", "late", ttl=5.0)
        with caplog.at_level(logging.ERROR, "neuralcore"):
            await asyncio.sleep(60)
        assert got.payloads == ["first"]
        metrics = bus.metrics()
        assert (metrics.expired, metrics.dead_lettered, metrics.transport["dead_letter_failed"]) == (1, 0, 1)
        (record,) = caplog.records
        assert record.exc_info
        gate.set()
