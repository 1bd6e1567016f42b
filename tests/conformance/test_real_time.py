"""The harness for any URL: the same checks in real time, and real processes to kill."""

from __future__ import annotations

import asyncio
import signal

import pytest

from neuralcore.testing.conformance import UrlHarness, Verdict, run
from neuralcore.testing.conformance.real import Victim

SAMPLE = ["isolation", "delay.delayed", "settlement.resend_on_error", "requests.timeout", "lifecycle.close_drains"]


class Hasty(UrlHarness):
    grace = 0.1


def test_the_lease_is_what_the_url_says():
    assert UrlHarness("memory://real-time?max_hold=5&lease=1.5").lease == 1.5
    assert UrlHarness("memory://real-time").lease == UrlHarness.lease


@pytest.mark.parametrize("url", ["native://", "memory://real-time?lease=1"])
def test_a_sample(url):
    report = run(url, harness=Hasty(url), only=SAMPLE)
    assert report.ok, str(report)
    assert report.counts()["pass"] == len(report.results) == 7


def test_a_shared_store_keeps_nothing_of_a_check_that_ends():
    url = "memory://real-time-groups"
    report = run(url, harness=Hasty(url), only=["patterns.reserved_tokens", "overflow.reject"])
    assert report.ok, str(report)


def test_what_cannot_be_killed_reads_unproven():
    url = "memory://real-time"
    report = run(url, harness=Hasty(url), only=["killed_in_its_handler", "killed_publisher"])
    assert [result.verdict for result in report.results] == [Verdict.UNPROVEN] * 2


def test_a_victim_says_what_it_does_and_dies():
    async def main():
        victim = await Victim.start("memory://", "hold", "jobs", "group", "1")
        await victim.line("ready")
        await victim.pause()
        await victim.resume()
        await victim.kill()
        assert victim.returncode == -signal.SIGKILL
        publisher = await Victim.start("native://", "publish", "jobs", "5")
        await publisher.line("published")
        await publisher.kill()

    asyncio.run(asyncio.wait_for(main(), 50))


def test_a_victim_whose_parent_is_gone_ends():
    async def main():
        victim = await Victim.start("memory://", "hold", "jobs", "group", "1")
        await victim.line("ready")
        assert await victim.orphan() == 0

    asyncio.run(asyncio.wait_for(main(), 50))
