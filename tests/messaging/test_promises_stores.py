"""What holds for every transport but native, shown on the memory store: commits, leases, suspects, prefetch."""

from __future__ import annotations

import asyncio

import pytest

from neuralcore.messaging.channel import Retention
from neuralcore.messaging.errors import PublishUnknown, Unsupported
from neuralcore.messaging.retry import Reject, RetryPolicy
from neuralcore.messaging.transport import Capabilities, CommitResult, Outcome, PublishStatus
from neuralcore.testing import Recorder, idle, virtual, virtual_bus
from neuralcore.testing.broken import Wrapped
from neuralcore.testing.bus import bus_in
from neuralcore.testing.memory import MemoryStore, MemoryTransport

LEASE = 10.0
TWICE = RetryPolicy(max_attempts=2, base=0.1)


class Spy(Wrapped):
    """Remembers what was committed together."""

    def __init__(self, inner):
        super().__init__(inner)
        self.commits = []

    async def commit(self, publishes, settlements=()):
        result = await super().commit(publishes, settlements)
        self.commits.append((list(publishes), list(settlements)))
        return result


def client(transport, **options):
    return bus_in(asyncio.get_running_loop(), transport, **options)


async def crash(bus, transport):
    transport.kill()
    await bus.close(drain=False, timeout=0.1)


async def subscribed(bus, channel, recorder, **options):
    subscription = bus.subscribe(channel, recorder.handle, **{"group": "g", **options})
    await subscription.ready()
    return subscription


@virtual
async def test_an_answer_that_never_came_is_publish_unknown_and_repeating_it_stores_it_once():
    class Forgetful(Wrapped):
        silent = True

        async def commit(self, publishes, settlements=()):
            result = await super().commit(publishes, settlements)
            if publishes and self.silent:
                self.silent = False
                return CommitResult([PublishStatus.UNKNOWN for _ in publishes], result.settled)
            return result

    async with virtual_bus(Forgetful(MemoryTransport())) as bus:
        got = Recorder()
        await subscribed(bus, "jobs", got)
        with pytest.raises(PublishUnknown) as caught:
            await bus.publish("jobs", 1)
        assert await bus.publish("jobs", 1, message_id=caught.value.id) == caught.value.id
        await asyncio.sleep(60)
        assert [message.id for message in got.messages] == [caught.value.id]


@virtual
async def test_a_transport_that_answers_too_few_statuses_stops_nothing():
    class Terse(Wrapped):
        terse = True

        async def commit(self, publishes, settlements=()):
            result = await super().commit(publishes, settlements)
            return CommitResult() if self.terse else result

    transport = Terse(MemoryTransport())
    async with virtual_bus(transport) as bus:
        with pytest.raises(PublishUnknown):
            await bus.publish("jobs", 1)
        transport.terse = False
        got = Recorder()
        await subscribed(bus, "jobs", got)
        await bus.publish("jobs", 2)
        await got.wait(2)


@virtual
async def test_a_dead_letter_is_stored_and_its_original_acked_in_one_commit():
    def reject(message):
        raise Reject("no")

    spy = Spy(MemoryTransport())
    async with virtual_bus(spy) as bus:
        await subscribed(bus, "jobs", Recorder(reject))
        id = await bus.publish("jobs", 1)
        await asyncio.sleep(60)
    (together,) = [commit for commit in spy.commits if any(e.channel == "_dlq.jobs" for e in commit[0])]
    publishes, settlements = together
    assert [envelope.headers["nc-dlq-id"] for envelope in publishes] == [id]
    assert [(s.outcome, s.delivery.envelope.id) for s in settlements] == [(Outcome.ACK, id)]


@virtual
async def test_a_dead_letters_id_is_derived_from_the_original_and_its_group():
    def reject(message):
        raise Reject("no")

    ids = []
    for group in ("g", "g", "other"):
        async with virtual_bus("memory://") as bus:
            dead = Recorder()
            await subscribed(bus, "_dlq.jobs", dead, group="dead")
            await subscribed(bus, "jobs", Recorder(reject), group=group)
            await bus.publish("jobs", 1, message_id="the-same")
            await dead.wait(1)
            ids.append(dead.messages[0].id)
    assert ids[0] == ids[1] != ids[2]


@virtual
async def test_on_a_lost_lease_running_handlers_see_it_and_waiting_deliveries_are_dropped():
    store, gate = MemoryStore(lease=LEASE), asyncio.Event()
    transport = MemoryTransport(store)
    stalled = client(transport)
    held = Recorder(lambda message: gate.wait())
    await stalled.start()
    await subscribed(stalled, "jobs", held)
    for n in range(5):
        await stalled.publish("jobs", n)
    await held.wait(1)
    assert not held.messages[0].lease_lost
    transport.freeze()
    async with virtual_bus(MemoryTransport(store)) as other:
        got = Recorder()
        await subscribed(other, "jobs", got)
        await got.wait(5)
        transport.thaw()
        await idle()
        assert held.messages[0].lease_lost
        gate.set()
        await asyncio.sleep(60)
        assert held.payloads == [0], "what waited was dropped: another consumer had it"
        assert sorted(got.payloads) == list(range(5))
    await stalled.close()


@virtual
async def test_a_process_runs_one_suspect_at_a_time_and_stores_its_attempt_first():
    store = MemoryStore(lease=LEASE)
    transport = MemoryTransport(store)
    victim = client(transport)
    held = Recorder(lambda message: asyncio.Event().wait())
    await victim.start()
    await subscribed(victim, "jobs", held, concurrency=3)
    for n in range(3):
        await victim.publish("jobs", n)
    await held.wait(3)
    await idle()
    await crash(victim, transport)
    running, together = 0, []

    async def act(message):
        nonlocal running
        running += 1
        together.append((message.payload, running))
        stored = [s for _, settlements in spy.commits for s in settlements if s.outcome is Outcome.ATTEMPT]
        assert message.id in {s.delivery.envelope.id for s in stored}
        await asyncio.sleep(1.0)
        running -= 1

    spy = Spy(MemoryTransport(store))
    async with virtual_bus(spy) as bus:
        got = Recorder(act)
        await subscribed(bus, "jobs", got, concurrency=3, retry=TWICE)
        await asyncio.sleep(60)
    assert sorted(payload for payload, _ in together) == list(range(3))
    assert {count for _, count in together} == {1}


@virtual
async def test_in_the_steady_state_no_attempt_is_stored():
    spy = Spy(MemoryTransport())
    async with virtual_bus(spy) as bus:
        got = Recorder()
        await subscribed(bus, "jobs", got, concurrency=3)
        for n in range(50):
            await bus.publish("jobs", n)
        await got.wait(50)
        await idle()
    outcomes = [s.outcome for _, settlements in spy.commits for s in settlements]
    assert outcomes == [Outcome.ACK] * 50


@virtual
async def test_settlements_and_publishes_that_come_together_share_a_commit():
    spy = Spy(MemoryTransport())
    async with virtual_bus(spy) as bus:
        got = Recorder()
        await subscribed(bus, "jobs", got, concurrency=10)
        await bus.publish_many([("jobs", n) for n in range(500)])
        await got.wait(500)
        await idle()
    assert len(spy.commits) < 100


@virtual
async def test_prefetch_is_bounded_and_a_full_mailbox_still_fetches_what_is_more_urgent():
    store, gate = MemoryStore(), asyncio.Event()
    async with virtual_bus(MemoryTransport(store)) as bus, virtual_bus(MemoryTransport(store)) as other:
        held = Recorder(lambda message: gate.wait() if message.payload != "warm" else None)
        await subscribed(bus, "jobs", held, capacity=5)
        for _ in range(20):
            await other.publish("jobs", "warm", priority=100)
        await held.wait(20)
        for n in range(100):
            await other.publish("jobs", n, priority=100)
        await held.wait(21)
        await idle()
        (stats,) = bus.metrics().subscriptions
        assert 4 <= stats.depth + stats.in_flight <= 6
        await other.publish("jobs", "urgent", priority=0)
        await idle()
        (stats,) = bus.metrics().subscriptions
        assert 0 in stats.depth_by_priority
        assert stats.depth + stats.in_flight <= 7
        gate.set()
        await held.wait(121)
        assert held.payloads[20:] == [0, "urgent", *range(1, 100)]
        assert set(held.attempts) == {1}, "what was released for it lost no attempt"


@virtual
async def test_retries_are_never_suppressed_as_duplicates():
    def fail(message):
        if message.attempt == 1:
            raise RuntimeError("on purpose")

    async with virtual_bus("memory://?dedup_window=1000") as bus:
        got = Recorder(fail)
        await subscribed(bus, "jobs", got, retry=TWICE)
        await bus.publish("jobs", 1, message_id="x")
        await bus.publish("jobs", 1, message_id="x")
        await asyncio.sleep(60)
        assert got.attempts == [1, 2]


@virtual
async def test_a_missing_capability_is_an_error_that_names_who_has_it():
    class Poor(Wrapped):
        def __init__(self, inner):
            super().__init__(inner)
            self.capabilities = Capabilities(groups=True)

    async with virtual_bus(Poor(MemoryTransport())) as bus:
        refusals = [
            lambda: bus.create_channel("jobs", retention=Retention(count=5)),
            lambda: bus.create_channel("jobs", capacity=5),
            lambda: bus.subscribe("jobs", Recorder().handle, broadcast=True),
            lambda: bus.subscribe("jobs", Recorder().handle, group="g", start="some-id"),
        ]
        for refusal in refusals:
            with pytest.raises(Unsupported) as caught:
                refusal()
            assert "memory" in caught.value.transports
        for options in ({"key": "k"}, {"delay": 1.0}, {"idempotency_key": "k"}, {"priority": 1}):
            with pytest.raises(Unsupported) as caught:
                await bus.publish("jobs", 1, **options)
            assert "memory" in caught.value.transports


@virtual
async def test_on_native_what_it_lacks_is_an_error_too():
    async with virtual_bus() as bus:
        for refusal in (
            lambda: bus.create_channel("jobs", retention=Retention(count=5)),
            lambda: bus.create_channel("jobs", dedup_window=5.0),
            lambda: bus.subscribe("jobs", Recorder().handle, start="beginning"),
        ):
            with pytest.raises(Unsupported) as caught:
                refusal()
            assert "memory" in caught.value.transports


@virtual
async def test_replies_are_not_retried_and_leave_by_the_transport_that_delivered_the_request():
    store = MemoryStore()
    server_side = Spy(MemoryTransport(store))
    async with virtual_bus(server_side) as server, virtual_bus(MemoryTransport(store)) as caller:
        await subscribed(server, "ask", Recorder(lambda message: message.payload + 1))
        assert await caller.request("ask", 1, timeout=60.0) == 2
    replies = [e for publishes, _ in server_side.commits for e in publishes if e.channel.startswith("_inbox.")]
    assert len(replies) == 1
