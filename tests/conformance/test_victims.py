"""Clients made to be killed: what they do with messages, and how much of the store they have in hand."""

from __future__ import annotations

import pytest

from neuralcore.testing.broken import GivesBackForEver
from neuralcore.testing.conformance import Bed, MemoryHarness, Promise, Verdict, catalogue, judge
from neuralcore.testing.conformance.errand import LATER, done
from neuralcore.testing.conformance.victims import first_to_hold, greedy


def proved(check):
    result = judge(Promise("group", "name", "It holds.", check), MemoryHarness())
    assert result.verdict is Verdict.PASS, result.detail


def test_a_greedy_client_holds_one_message_and_has_many_more():
    async def check(bed: Bed) -> None:
        bus, channel, group = await bed.bus(), bed.channel(), bed.group()
        victim, _ = await greedy(bed, bus, channel, group)
        await bus.publish_many([(channel, n) for n in range(20)])
        await victim.holding(1)
        await bed.soon()
        stats = await (await bed.transport()).stats()
        assert stats[channel].in_flight == 20

    proved(check)


def test_errands():
    async def check(bed: Bed) -> None:
        bus, channel, receipts, dead = await bed.bus(), bed.channel(), bed.collector(), bed.collector()
        await bed.subscribe(bus, done(channel), receipts.handle)
        await bed.subscribe(bus, f"_dlq.{channel}", dead.handle)
        victim = await bed.spawn(channel, bed.group())
        await bus.publish(channel, "reject-1")
        await dead.exactly(1)
        began = bed.now
        await bus.publish_many([(channel, payload) for payload in ("quick-1", "slow-2", "later-3")])
        await receipts.count(4)
        assert receipts.payloads == ["quick-1", "slow-2", "later-3", "later-3"]
        assert receipts.times[3] - began >= LATER
        await bus.publish(channel, "quick")
        await bus.publish(channel, {"no": "errand"})
        await victim.holding(1)
        await receipts.count(5)
        assert receipts.payloads[4] == "quick"

    proved(check)


def test_who_holds_a_message():
    async def check(bed: Bed) -> None:
        bus, channels = await bed.bus(), [bed.channel(), bed.channel()]
        clients = [await bed.spawn(channel, bed.group()) for channel in channels]
        await bus.publish(channels[1], "held")
        assert await first_to_hold(bed, clients) == 1

    proved(check)


def test_a_stopped_client_learns_of_its_lost_leases_when_it_goes_on():
    async def check(bed: Bed) -> None:
        bus, channel, group, got = await bed.bus(), bed.channel(), bed.group(), bed.collector()
        victim = await bed.spawn(channel, group)
        await bus.publish(channel, "held")
        await victim.holding(1)
        await victim.pause()
        await bed.subscribe(bus, channel, got.handle, group=group)
        await got.exactly(1)
        message = victim._held[0]
        assert not message.lease_lost
        await victim.resume()
        await bed.soon()
        assert message.lease_lost

    proved(check)


def test_a_message_that_comes_for_ever_hangs_no_check():
    (in_time,) = [promise for promise in catalogue() if str(promise) == "expiry.in_time"]
    harness = MemoryHarness(wrap=GivesBackForEver)
    harness.turns = 2000
    result = judge(in_time, harness)
    assert result.verdict is Verdict.FAIL
    assert result.detail.startswith("Deadlock: time stood still for 2000 turns of the loop; pending tasks:")


@pytest.mark.parametrize("wanted", [["a", "b"], ["a", "c"]])
def test_a_collector_that_is_to_include_payloads_does_not_mind_others(wanted):
    async def check(bed: Bed) -> None:
        bus, channel, got = await bed.bus(), bed.channel(), bed.collector()
        await bed.subscribe(bus, channel, got.handle)
        await bus.publish_many([(channel, payload) for payload in ("a", {"no": "hash"}, "b", "a")])
        await got.include(wanted)

    result = judge(Promise("group", "name", "It holds.", check), MemoryHarness())
    assert result.detail == ("" if wanted == ["a", "b"] else "lost 1 of 2 messages, first ['c']")
