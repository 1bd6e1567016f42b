"""Listing, replaying and discarding dead letters."""

import asyncio

import pytest

from neuralcore.messaging import headers
from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.dead_letters import DeadLetters
from neuralcore.messaging.errors import DecodeError, Unsupported
from neuralcore.messaging.retry import RetryPolicy
from neuralcore.messaging.transport import Envelope
from neuralcore.testing import virtual
from neuralcore.testing.memory import MemoryTransport

ONCE = RetryPolicy(max_attempts=1)


class Fixable:
    """A handler that fails until it is repaired."""

    def __init__(self):
        self.broken = True
        self.seen = []

    def __call__(self, message):
        if self.broken:
            raise LookupError(f"cannot handle {message.payload}")
        self.seen.append((message.payload, message.attempt, message.headers.get(headers.REPLAY)))


async def failed_messages(town, count, **options):
    transport = MemoryTransport(town.store)
    bus, handler = await town.bus(transport), Fixable()
    await bus.subscribe("jobs", handler, group="g", retry=ONCE, blocking=False, **options).ready()
    await bus.publish_many([("jobs", number) for number in range(count)])
    await town.eventually(lambda: town.stats().depth == 0)
    return bus, handler, DeadLetters(transport, "jobs", dead_letter=options.get("dead_letter"))


@virtual
async def test_the_bus_hands_out_the_dead_letters_of_a_channel(town):
    bus, _, _ = await failed_messages(town, 3)
    assert [letter.payload() async for letter in bus.dead_letters("jobs")] == [0, 1, 2]


@virtual
async def test_native_keeps_no_dead_letters_and_says_so(town):
    async with MessageBus(clock=asyncio.get_running_loop().clock) as bus:
        with pytest.raises(Unsupported, match=r"browse.*memory"):
            bus.dead_letters("jobs")


@virtual
async def test_every_letter_is_listed_with_its_story(town):
    _bus, _, letters = await failed_messages(town, 250)
    found = [letter async for letter in letters]
    assert [letter.payload() for letter in found] == list(range(250))
    first = found[0]
    assert (first.origin, first.group, first.reason, first.attempts) == ("jobs", "g", "attempts", 1)
    assert (first.error_type, first.error) == ("LookupError", "cannot handle 0")
    assert first.time_ns >= first.envelope.timestamp_ns
    await town.close()


@virtual
async def test_a_replay_brings_the_original_back_and_takes_the_letter_away(town):
    _bus, handler, letters = await failed_messages(town, 120)
    handler.broken = False
    assert await letters.replay() == 120
    await town.eventually(lambda: len(handler.seen) == 120)
    assert sorted(handler.seen) == [(number, 1, "1") for number in range(120)]
    assert [letter async for letter in letters] == []
    assert await letters.replay() == 0
    await town.close()


@virtual
async def test_a_replay_that_fails_again_makes_a_letter_again(town):
    _bus, _handler, letters = await failed_messages(town, 1)
    for replay in (1, 2, 3):
        assert await letters.replay() == 1
        await town.eventually(lambda: town.stats("_dlq.jobs").stored == 1)
        (letter,) = [letter async for letter in letters]
        assert letter.envelope.headers[headers.REPLAY] == str(replay)
    await town.close()


@virtual
async def test_only_what_is_wanted_is_replayed_and_no_more_than_the_limit(town):
    _bus, handler, letters = await failed_messages(town, 10)
    handler.broken = False
    assert await letters.replay(lambda letter: letter.payload() % 2 == 0, limit=3) == 3
    await town.eventually(lambda: len(handler.seen) == 3)
    assert [payload for payload, _, _ in handler.seen] == [0, 2, 4]
    assert [letter.payload() async for letter in letters] == [1, 3, 5, 6, 7, 8, 9]
    assert await letters.discard(lambda letter: letter.payload() > 5) == 4
    assert [letter.payload() async for letter in letters] == [1, 3, 5]
    await town.close()


@virtual
async def test_a_replay_is_for_the_group_that_gave_up(town):
    bus, handler, letters = await failed_messages(town, 1)
    others = {"h": Fixable(), "i": Fixable()}
    others["i"].broken = False
    for group, other in others.items():
        await bus.subscribe("jobs", other, group=group, retry=ONCE, blocking=False).ready()
    await bus.publish("jobs", "second")
    await town.eventually(lambda: town.stats().depth == 0)
    assert [(letter.payload(), letter.group) async for letter in letters] == [
        (0, "g"),
        ("second", "g"),
        ("second", "h"),
    ]
    handler.broken = others["h"].broken = False
    assert await letters.replay() == 3
    await town.eventually(lambda: len(handler.seen) == 2 and len(others["h"].seen) == 1)
    await town.eventually(lambda: town.stats().depth == 0)
    assert [payload for payload, _, _ in handler.seen] == [0, "second"]
    assert [payload for payload, _, _ in others["h"].seen] == ["second"]
    assert [payload for payload, _, _ in others["i"].seen] == ["second"]
    await town.close()


@virtual
async def test_a_full_channel_keeps_its_letters(town):
    bus, _handler, letters = await failed_messages(town, 3)
    bus.create_channel("jobs", capacity=1, overflow="reject")
    await bus.publish("warm", 1)
    await bus.close()
    transport = MemoryTransport(town.store)
    await town.bus(transport)
    letters = DeadLetters(transport, "jobs")
    assert await letters.replay() == 1
    assert len([letter async for letter in letters]) == 2
    await town.close()


@virtual
async def test_letters_of_a_configured_channel_and_undecodable_ones(town):
    _bus, _handler, letters = await failed_messages(town, 0, dead_letter="graveyard")
    broken = Envelope(id="bad", channel="jobs", body=b"{", content_type="application/json")
    town.store.publish(broken, town.now())
    await town.eventually(lambda: town.stats("graveyard").stored == 1)
    (letter,) = [letter async for letter in letters]
    assert (letter.id, letter.reason) == ("bad", "undecodable")
    with pytest.raises(DecodeError):
        letter.payload()
    assert letter.again().body == b"{"
    await town.close()
