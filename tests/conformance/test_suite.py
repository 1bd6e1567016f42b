"""The suite itself: verdicts, reports, what a harness leaves out, and how a third party uses it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from neuralcore.messaging.errors import UnknownScheme
from neuralcore.messaging.transport import Capabilities
from neuralcore.testing.conformance import (
    Broken,
    MemoryHarness,
    NativeHarness,
    Promise,
    Report,
    Result,
    Unproven,
    Verdict,
    catalogue,
    harness_for,
    judge,
    run,
)
from neuralcore.testing.conformance.promise import promise


async def kept(bed):
    """It is kept."""


async def broken(bed):
    raise Broken("it is not")


async def crashing(bed):
    raise KeyError("what")


async def hanging(bed):
    import asyncio

    await asyncio.Event().wait()


async def undrivable(bed):
    raise Unproven("the harness has no hammer")


def verdict(check, **fields):
    result = judge(Promise("group", "name", "text", check, **fields), NativeHarness())
    return result.verdict, result.detail


def test_verdicts():
    assert verdict(kept) == (Verdict.PASS, "")
    assert verdict(broken) == (Verdict.FAIL, "it is not")
    assert verdict(crashing) == (Verdict.FAIL, "KeyError: 'what'")
    assert verdict(undrivable) == (Verdict.UNPROVEN, "the harness has no hammer")
    assert verdict(broken, needs=("durable", "groups")) == (Verdict.NOT_DECLARED, "durable")
    assert verdict(broken, stores=True) == (Verdict.NOT_DECLARED, "a store of its own")
    failed, detail = verdict(hanging)
    assert failed is Verdict.FAIL
    assert "Deadlock: nothing can run" in detail
    assert "in hanging" in detail


def result(verdict, *, mandatory=False):
    return Result(group="g", name="n", promise="It holds.", mandatory=mandatory, verdict=verdict, detail="why")


@pytest.mark.parametrize(
    ("verdict", "mandatory", "ok"),
    [
        (Verdict.PASS, True, True),
        (Verdict.FAIL, False, False),
        (Verdict.FAIL, True, False),
        (Verdict.NOT_DECLARED, False, True),
        (Verdict.UNPROVEN, False, True),
        (Verdict.UNPROVEN, True, False),
    ],
)
def test_what_makes_a_report_ok(verdict, mandatory, ok):
    report = Report(transport="x://", capabilities=("groups",), results=(result(verdict, mandatory=mandatory),))
    assert report.ok is ok
    assert report.to_dict()["results"][0]["verdict"] == verdict.value
    assert json.dumps(report.to_dict())
    for text in ("x://", "groups", verdict.value, "It holds.", "why"):
        assert text in str(report)


def test_every_promise_is_a_sentence_and_has_a_name_of_its_own():
    promises = catalogue()
    assert len({str(one) for one in promises}) == len(promises) > 100
    for one in promises:
        assert one.text.endswith("."), one
        assert len(one.text) < 140, one


def test_the_mandatory_promises_are_asked_of_every_transport():
    mandatory = {one.group for one in catalogue() if one.mandatory and not one.needs}
    assert {"intact", "isolation", "settlement", "retries", "lifecycle"} <= mandatory


def test_a_misspelt_capability_is_refused():
    with pytest.raises(ValueError, match="durabel"):
        promise("durabel")


def test_only_some_promises_and_progress():
    seen = []
    report = run("native://", only=["isolation", "intact.payloads", "fifo"], progress=seen.append)
    assert [f"{one.group}.{one.name}" for one in report.results] == [
        "intact.payloads",
        "isolation.channels",
        "isolation.similar_names",
        "isolation.one_group_name_on_two_channels",
        "order.fifo",
    ]
    assert tuple(seen) == report.results
    assert report.ok


def test_what_the_harness_cannot_drive_reads_unproven():
    class Timid(MemoryHarness):
        async def spawn(self, channel, group, *, concurrency=1):
            raise Unproven("no processes here")

    report = run("memory://", harness=Timid(), only=["killed_in_its_handler", "restarted_broker"])
    assert [one.verdict for one in report.results] == [Verdict.UNPROVEN, Verdict.NOT_DECLARED]


def test_a_transport_that_declares_little_is_asked_little():
    class Little(MemoryHarness):
        def capabilities(self):
            return Capabilities(groups=True)

    asked = [one for one in catalogue() if not one.missing(Little().capabilities())]
    assert {"intact", "settlement", "lifecycle"} <= {one.group for one in asked} < {one.group for one in catalogue()}


def test_an_unknown_scheme_is_its_own_error():
    with pytest.raises(UnknownScheme, match="nosuch"):
        run("nosuch://host")


def test_which_harness_a_url_gets():
    assert [type(harness_for(url)).__name__ for url in ("native://", "memory://x", "sqlite:///f")] == [
        "NativeHarness",
        "MemoryHarness",
        "UrlHarness",
    ]


def test_as_a_program():
    command = [sys.executable, "-W", "ignore", "-m", "neuralcore.testing.conformance", "native://", "isolation"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=50).stdout
    assert "3 pass, 0 fail" in text
    data = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True, timeout=50).stdout
    assert json.loads(data)["ok"] is True
