"""What settling means on a transport: when it happens, what it carries, and what becomes of failures."""

import asyncio
import itertools

import pytest

from neuralcore.messaging import headers
from neuralcore.messaging.retry import Reject, Retry, RetryPolicy
from neuralcore.messaging.transport import Envelope
from neuralcore.testing import virtual


def letters(town, channel="_dlq.jobs"):
    return [(letter.headers[headers.DLQ_REASON], letter) for letter in town.browse(channel)]


async def put(town, body, **fields):
    """A message from somebody else's client."""
    fields.setdefault("id", "foreign")
    town.store.publish(Envelope(channel="jobs", body=body, **fields), town.now())


@virtual
async def test_nothing_is_settled_before_the_handler_returned(town, relay_on):
    relay = relay_on(town.store)
    bus = await town.bus(relay)
    release = asyncio.Event()

    async def handler(message):
        await release.wait()

    await bus.subscribe("jobs", handler, group="g").ready()
    await bus.publish("jobs", 1, message_id="m")
    await asyncio.sleep(60)
    assert relay.settled == []
    release.set()
    await town.eventually(lambda: relay.settled == [("ack", "m")])
    await town.close()


@virtual
async def test_the_dead_letter_and_the_ack_of_the_original_are_one_commit(town, relay_on):
    relay = relay_on(town.store)
    bus = await town.bus(relay)

    async def handler(message):
        raise Reject("no good")

    await bus.subscribe("jobs", handler, group="g").ready()
    await bus.publish("jobs", {"a": 1}, key="k", priority=7, headers={"mine": "yes"}, message_id="m")
    await town.eventually(lambda: town.stats().depth == 0)
    assert relay.commits[-1] == (1, 1)
    ((reason, letter),) = letters(town)
    assert reason == "rejected"
    assert (letter.key, letter.priority, letter.headers["mine"]) == ("k", 7, "yes")
    assert letter.headers[headers.DLQ_ORIGIN] == "jobs"
    assert letter.headers[headers.DLQ_GROUP] == "g"
    assert letter.headers[headers.DLQ_ERROR] == "no good"
    assert letter.headers[headers.DLQ_ID] == "m"
    await town.close()


@virtual
async def test_a_dead_letter_whose_answer_was_lost_is_stored_once(town, relay_on):
    relay = relay_on(town.store)
    bus = await town.bus(relay)

    async def handler(message):
        relay.lose_answer = True
        raise Reject

    await bus.subscribe("jobs", handler, group="g").ready()
    await bus.publish("jobs", 1)
    await asyncio.sleep(5)
    relay.lose_answer = False
    await town.eventually(lambda: town.stats().depth == 0)
    assert len(letters(town)) == 1
    await bus.close()
    assert town.stats("_dlq.jobs").stored == 1


@virtual
async def test_an_undecodable_message_fails_its_delivery_and_never_the_fetch(town):
    bus = await town.bus()
    seen = []
    await bus.subscribe("jobs", lambda message: seen.append(message.payload), group="g", blocking=False).ready()
    await put(town, b"{not json", content_type="application/json")
    await bus.publish("jobs", "good")
    await town.eventually(lambda: town.stats().depth == 0)
    assert seen == ["good"]
    ((reason, letter),) = letters(town)
    assert reason == "undecodable"
    assert (letter.body, letter.content_type) == (b"{not json", "application/json")
    await town.close()


@virtual
async def test_in_a_batch_only_the_undecodable_message_fails(town):
    bus = await town.bus()
    batches = []
    subscription = bus.subscribe(
        "jobs", lambda batch: batches.append([m.payload for m in batch]), group="g", batch=10, blocking=False
    )
    await subscription.ready()
    await bus.publish("jobs", "warm")
    await town.eventually(lambda: town.stats().depth == 0)
    await put(town, b"{", content_type="application/json")
    await bus.publish_many([("jobs", "a"), ("jobs", "b")])
    await town.eventually(lambda: town.stats().depth == 0)
    assert sorted(payload for batch in batches for payload in batch) == ["a", "b", "warm"]
    assert [reason for reason, _ in letters(town)] == ["undecodable"]
    await town.close()


@virtual
async def test_a_failure_waits_its_back_off_in_the_store(town):
    bus, times = await town.bus(), []

    async def handler(message):
        times.append((town.loop.time(), message.attempt))
        if message.attempt == 1:
            raise Retry(after=7)
        if message.attempt < 4:
            raise ValueError

    policy = RetryPolicy(base=5, factor=2, jitter=False)
    subscription = bus.subscribe("jobs", handler, group="g", retry=policy)
    await subscription.ready()
    await bus.publish("jobs", 1)
    await town.eventually(lambda: town.stats().depth == 0)
    assert [attempt for _, attempt in times] == [1, 2, 3, 4]
    waits = [b - a for (a, _), (b, _) in itertools.pairwise(times)]
    assert waits == pytest.approx([7, 10, 20], abs=0.1)
    (metrics,) = bus.metrics().subscriptions
    assert (metrics.retried, metrics.acked, metrics.delivered) == (3, 1, 4)
    await town.close()


@virtual
async def test_settlements_go_on_being_offered_until_the_transport_answers(town, relay_on):
    relay = relay_on(town.store)
    bus = await town.bus(relay)
    handled = []

    async def handler(message):
        handled.append(message.payload)
        relay.refuse = ConnectionResetError("gone")

    await bus.subscribe("jobs", handler, group="g").ready()
    await bus.publish("jobs", 1)
    await asyncio.sleep(120)
    assert town.stats().in_flight == 1
    relay.refuse = None
    await town.eventually(lambda: town.stats().depth == 0)
    assert handled == [1]
    await town.close()


@virtual
@pytest.mark.parametrize("overflow", ["reject", "drop_new"])
async def test_a_message_is_not_lost_because_its_dead_letter_channel_is_full(town, overflow):
    bus = await town.bus()
    bus.create_channel("graveyard", capacity=1, overflow=overflow)
    await bus.publish("graveyard", "full")

    async def handler(message):
        raise Reject

    policy = RetryPolicy(cap=60)
    await bus.subscribe("jobs", handler, group="g", dead_letter="graveyard", retry=policy).ready()
    await bus.publish("jobs", 1)
    await asyncio.sleep(30)
    assert town.stats().lag == {"g": 1}
    assert bus.metrics().transport["dead_letter_failed"] == 1
    bus.create_channel("graveyard", capacity=2, overflow=overflow)
    await town.eventually(lambda: town.stats().depth == 0)
    assert len(town.browse("graveyard")) == 2
    await town.close()


@virtual
async def test_a_dead_letter_waits_for_room_and_its_original_stays_leased(town):
    bus = await town.bus()
    bus.create_channel("graveyard", capacity=1)
    await bus.publish("graveyard", "full")

    async def handler(message):
        raise Reject

    await bus.subscribe("jobs", handler, group="g", dead_letter="graveyard").ready()
    await bus.publish("jobs", 1)
    await asyncio.sleep(100)
    assert town.stats().in_flight == 1
    undertaker = []
    await bus.subscribe("graveyard", undertaker.append, group="u", blocking=False).ready()
    await town.eventually(lambda: town.stats().depth == 0 and len(undertaker) == 2)
    await town.close()


@virtual
async def test_an_expired_message_is_counted_or_dead_lettered_and_never_handled(town):
    bus, handled = await town.bus(), []
    for channel, expired in (("jobs", "dead_letter"), ("other", "count")):
        await bus.subscribe(channel, handled.append, group="g", blocking=False, expired=expired).ready()
    for channel in ("jobs", "other"):
        await bus.publish(channel, 1, ttl=5, delay=6)
    await asyncio.sleep(10)
    assert handled == []
    assert [reason for reason, _ in letters(town)] == ["expired"]
    assert (town.stats("jobs").depth, town.stats("other").depth) == (0, 0)
    assert [metrics.expired for metrics in bus.metrics().subscriptions] == [1, 1]
    await town.close()


@virtual
async def test_streams_get_decoded_messages_and_settle_them_themselves(town):
    bus = await town.bus()
    stream = bus.stream("jobs", group="g")
    await put(town, b"{", content_type="application/json", id="bad")
    await bus.publish("jobs", {"n": 1})
    await bus.publish("jobs", {"n": 2})
    first = await anext(aiter(stream))
    assert first.payload == {"n": 1}
    await first.ack()
    second = await anext(aiter(stream))
    await stream.close()
    assert second.settled
    assert town.stats().lag == {"g": 1}
    assert [reason for reason, _ in letters(town)] == ["undecodable"]
    await town.close()


@virtual
async def test_a_suspect_reaches_a_stream_after_its_attempt_is_stored(town, relay_on):
    from neuralcore.testing.memory import MemoryTransport

    dying = MemoryTransport(town.store)
    first = await town.bus(dying)
    await first.subscribe("jobs", lambda message: asyncio.Event().wait(), group="g").ready()
    await first.publish("jobs", 1, message_id="m")
    await asyncio.sleep(0.1)
    dying.kill()
    relay = relay_on(town.store)
    second = await town.bus(relay)
    async with second.stream("jobs", group="g") as stream:
        message = await anext(aiter(stream))
        assert relay.settled == [("attempt", "m")]
        await message.ack()
    assert town.stats().depth == 0
    await town.close()


@virtual
async def test_broadcasts_reach_every_bus_and_every_subscription(town):
    one, two = await town.bus(), await town.bus()
    seen = []
    for name, bus in (("a", one), ("b", one), ("c", two)):
        await bus.subscribe(
            "news.>", lambda message, name=name: seen.append((name, message.payload)), broadcast=True, blocking=False
        ).ready()
    await one.publish("news.today", "x")
    await town.eventually(lambda: len(seen) == 3)
    assert sorted(seen) == [("a", "x"), ("b", "x"), ("c", "x")]
    await town.close()
