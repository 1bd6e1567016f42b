"""The promises about a broker that is restarted, asked of the memory store as if it were one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from neuralcore.testing.conformance import MemoryHarness, Verdict, catalogue, judge
from neuralcore.testing.memory import MemoryStore, MemoryTransport

PROMISES = [one for one in catalogue() if "durable" in one.needs]


class Durable(MemoryHarness):
    """Its broker keeps everything."""

    def capabilities(self):
        return replace(MemoryTransport.capabilities, durable=True)

    async def restart(self):
        await self.advance(0.1)


class Forgetful(Durable):
    """Its broker keeps nothing."""

    async def restart(self):
        self.store = MemoryStore()


class Hasty(Durable):
    """Its broker keeps everything but what it waits for: it forgets the delays."""

    async def restart(self):
        for heap in (self.store._delays._mono, self.store._delays._wall):
            for _, _, entry in heap:
                entry.position.ready(entry)
            heap.clear()


@pytest.mark.parametrize("promise", PROMISES, ids=str)
def test_a_broker_that_keeps_everything(promise):
    result = judge(promise, Durable())
    assert result.verdict is Verdict.PASS, result.detail


@pytest.mark.parametrize("promise", [one for one in PROMISES if one.group == "restart"], ids=str)
def test_a_broker_that_keeps_nothing(promise):
    assert judge(promise, Forgetful()).verdict is Verdict.FAIL


def test_a_broker_that_forgets_delays():
    (delays,) = [one for one in PROMISES if str(one) == "restart.delays"]
    result = judge(delays, Hasty())
    assert result.verdict is Verdict.FAIL
    assert "came before its time" in result.detail


def test_a_broker_that_cannot_be_restarted_proves_nothing():
    class Fixed(Durable):
        restart = MemoryHarness.restart

    for promise in PROMISES:
        assert judge(promise, Fixed()).verdict is Verdict.UNPROVEN
