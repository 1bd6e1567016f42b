"""A message is settled after its handler returned; attempts; retry; dead letters."""

from __future__ import annotations

import asyncio

import pytest

from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.errors import AlreadySettled
from neuralcore.messaging.retry import Reject, Retry, RetryPolicy
from neuralcore.testing import Recorder, idle, virtual, virtual_bus

BOTH = pytest.mark.parametrize("url", ["native://", "memory://"])
EXACT = RetryPolicy(max_attempts=3, base=1.0, factor=2.0, cap=30.0, jitter=False)


def failing(*errors: BaseException):
    """Raises these, one an attempt, then succeeds."""

    def act(message):
        if message.attempt <= len(errors):
            raise errors[message.attempt - 1]

    return Recorder(act)


async def subscribed(bus: MessageBus, channel: str, recorder: Recorder, **options):
    subscription = bus.subscribe(channel, recorder.handle, **{"group": "g", **options})
    await subscription.ready()
    return subscription


@BOTH
@virtual(seeds=2)
async def test_a_message_is_settled_only_after_the_handler_returned(url):
    gate = asyncio.Event()
    async with virtual_bus(url) as bus:
        held = Recorder(lambda message: gate.wait())
        await subscribed(bus, "jobs", held)
        await bus.publish("jobs", 1)
        await held.wait(1)
        await asyncio.sleep(60)
        (stats,) = bus.metrics().subscriptions
        assert (stats.in_flight, stats.acked) == (1, 0)
        assert not held.messages[0].settled
        gate.set()
        await idle()
        (stats,) = bus.metrics().subscriptions
        assert (stats.in_flight, stats.acked) == (0, 1)
        assert held.messages[0].settled


@BOTH
@virtual
async def test_raising_retries_with_exponential_backoff_and_dead_letters_at_the_end(url):
    async with virtual_bus(url) as bus:
        dead, got = Recorder(), failing(*[ValueError("broken")] * 3)
        await subscribed(bus, "_dlq.jobs", dead)
        await subscribed(bus, "jobs", got, retry=EXACT)
        await bus.publish("jobs", {"n": 1}, headers={"mine": "yes"})
        (letter,) = await dead.wait(1)
        assert got.gaps == [1.0, 2.0]
        assert got.attempts == [1, 2, 3]
        assert letter.payload == {"n": 1}
        assert letter.headers["mine"] == "yes"
        assert letter.headers["nc-dlq-origin"] == "jobs"
        assert letter.headers["nc-dlq-reason"] == "attempts"
        assert letter.headers["nc-dlq-error-type"] == "ValueError"
        assert letter.headers["nc-dlq-error"] == "broken"
        assert letter.headers["nc-dlq-attempts"] == "3"
        assert letter.headers["nc-dlq-group"] == "g"
        assert letter.headers["nc-dlq-id"] == got.messages[0].id


@virtual
async def test_full_jitter_is_drawn_from_the_buses_randomness():
    async def times(seed: int) -> list[float]:
        import random

        async with virtual_bus(rng=random.Random(seed)) as bus:
            got = failing(*[ValueError()] * 4)
            await subscribed(bus, "jobs", got, retry=RetryPolicy(max_attempts=5, base=1.0, cap=3.0))
            await bus.publish("jobs", 1)
            await got.wait(5)
            assert all(gap <= ceiling for gap, ceiling in zip(got.gaps, [1, 2, 3, 3], strict=True))
            return got.gaps

    assert await times(1) == await times(1)
    assert await times(1) != await times(2)


@BOTH
@virtual
async def test_reject_dead_letters_at_once(url):
    async with virtual_bus(url) as bus:
        dead, got = Recorder(), failing(Reject("no use"))
        await subscribed(bus, "_dlq.jobs", dead)
        await subscribed(bus, "jobs", got)
        await bus.publish("jobs", 1)
        (letter,) = await dead.wait(1)
        assert got.attempts == [1]
        assert (letter.headers["nc-dlq-reason"], letter.headers["nc-dlq-error"]) == ("rejected", "no use")


@BOTH
@virtual
async def test_retry_after_asks_for_a_delay(url):
    async with virtual_bus(url) as bus:
        got = failing(Retry(after=42.0), Retry(after=0.0))
        await subscribed(bus, "jobs", got, retry=EXACT)
        await bus.publish("jobs", 1)
        await got.wait(3)
        assert got.gaps == [42.0, 0.0]


@BOTH
@virtual
async def test_a_retry_by_exception_counts_an_attempt_too(url):
    async with virtual_bus(url) as bus:
        dead, got = Recorder(), failing(*[Retry(after=1.0)] * 3)
        await subscribed(bus, "_dlq.jobs", dead)
        await subscribed(bus, "jobs", got, retry=EXACT)
        await bus.publish("jobs", 1)
        await dead.wait(1)
        assert got.attempts == [1, 2, 3]


@BOTH
@virtual
async def test_a_dead_letter_is_never_dead_lettered_again(url):
    async with virtual_bus(url) as bus:
        dead = failing(*[Reject()] * 9)
        await subscribed(bus, "_dlq.jobs", dead)
        await subscribed(bus, "jobs", failing(*[Reject()] * 9))
        await bus.publish("jobs", 1)
        await dead.wait(1)
        await asyncio.sleep(600)
        assert len(dead.messages) == 1
        assert not [name for name in bus.metrics().channels if name.startswith("_dlq._dlq")]


@BOTH
@virtual
async def test_release_counts_nothing_and_nack_counts_one(url):
    verbs = ["release", "release", "nack", "release", "ack"]

    async def act(message):
        await getattr(message, verbs[len(got.messages) - 1])()

    async with virtual_bus(url) as bus:
        got = Recorder(act)
        await subscribed(bus, "jobs", got, retry=EXACT)
        await bus.publish("jobs", 1)
        await got.wait(5)
        await asyncio.sleep(60)
        assert got.attempts == [1, 1, 1, 2, 2]


@BOTH
@virtual
async def test_each_delivery_is_settled_once(url):
    raised = []

    async def act(message):
        await message.ack()
        for verb in (message.ack, message.nack, message.reject, message.release):
            with pytest.raises(AlreadySettled) as caught:
                await verb()
            raised.append(caught.value.id)
        raise RuntimeError("after the ack: it changes nothing")

    async with virtual_bus(url) as bus:
        got = Recorder(act)
        await subscribed(bus, "jobs", got)
        id = await bus.publish("jobs", 1)
        await got.wait(1)
        await asyncio.sleep(60)
        assert raised == [id] * 4
        assert len(got.messages) == 1


@BOTH
@virtual(seeds=2)
async def test_cancelling_the_task_that_runs_a_handler_is_a_failed_attempt(url):
    async with virtual_bus(url) as bus:
        tasks = []

        async def act(message):
            tasks.append(asyncio.current_task())
            if message.attempt == 1:
                await asyncio.Event().wait()

        got = Recorder(act)
        await subscribed(bus, "jobs", got, retry=EXACT)
        await bus.publish("jobs", 1)
        await got.wait(1)
        await idle()
        tasks[0].cancel()
        await got.wait(2)
        assert got.attempts == [1, 2]
        await bus.publish("jobs", 2)
        await got.wait(3)


@virtual
async def test_a_timeout_is_a_failed_attempt_and_the_worker_stays():
    async with virtual_bus() as bus:
        tasks = []

        async def act(message):
            tasks.append(asyncio.current_task())
            if message.attempt == 1:
                await asyncio.sleep(1000)

        got = Recorder(act)
        await subscribed(bus, "jobs", got, retry=EXACT, timeout=5.0)
        await bus.publish("jobs", 1)
        await got.wait(2)
        assert round(got.times[1] - got.times[0], 3) == 6.0
        assert tasks[0] is tasks[1]


@virtual
async def test_closing_the_bus_is_no_failed_attempt():
    from neuralcore.testing.memory import MemoryStore, MemoryTransport

    store = MemoryStore()
    held = Recorder(lambda message: asyncio.Event().wait())
    async with virtual_bus(MemoryTransport(store)) as first:
        await subscribed(first, "jobs", held)
        await first.publish("jobs", 1)
        await held.wait(1)
        report = await first.close(drain=False)
        assert (report.drained, report.handled, report.released) == (False, 0, 1)
    async with virtual_bus(MemoryTransport(store)) as second:
        got = Recorder()
        await subscribed(second, "jobs", got)
        await got.wait(1)
        assert got.attempts == [1]


@virtual
async def test_a_dead_letter_that_cannot_be_published_is_tried_again():
    async with virtual_bus() as bus:
        bus.create_channel("graveyard", capacity=1, overflow="reject")
        gate, first = asyncio.Event(), failing(*[Reject()] * 99)
        dead = Recorder(lambda message: gate.wait())
        await subscribed(bus, "graveyard", dead)
        await subscribed(bus, "jobs", first, dead_letter="graveyard", retry=EXACT)
        await bus.publish("graveyard", "in the way")
        await bus.publish("jobs", "dead")
        await asyncio.sleep(5)
        assert dead.payloads == ["in the way"]
        gate.set()
        await dead.wait(2)
        assert dead.payloads == ["in the way", "dead"]


@BOTH
@virtual
async def test_a_batch_is_settled_together_or_one_by_one(url):
    calls = []

    async def handle(messages: list):
        calls.append([(message.payload, message.attempt) for message in messages])
        if len(calls) == 1:
            await messages[1].ack()
            raise RuntimeError("the others fail")

    async with virtual_bus(url) as bus:
        started = bus.subscribe("jobs", handle, group="g", batch=3, retry=EXACT)
        await started.ready()
        await bus.publish_many([("jobs", n) for n in range(3)])
        await asyncio.sleep(60)
        first = calls[0]
        assert sorted(pair for call in calls for pair in call if pair[1] == 1) == [(0, 1), (1, 1), (2, 1)]
        retried = {payload for call in calls for payload, attempt in call if attempt == 2}
        acked = first[1][0] if len(first) > 1 else None
        assert retried == {payload for payload, _ in first} - {acked}
