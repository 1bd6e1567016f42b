"""The plugin that records what came of every promise: what is written for each way that a test can end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import pytest

from neuralcore.testing.conformance import Broken, MemoryHarness, NativeHarness, Promise, Unproven
from neuralcore.testing.conformance.suite import TransportConformance


async def kept(bed):
    pass


async def broken(bed):
    raise Broken("it is not, | for once\\nand at length")


async def undrivable(bed):
    raise Unproven("no hammer")


def promise(check, name, *needs):
    return Promise("group", name, "It holds.", check, needs)


class TestMine(TransportConformance):
    setup = "mine"
    why_left_out = "it is for others"

    @pytest.fixture(autouse=True)
    def server(self, request):
        name = request.node.callspec.params["promise"].name
        if name == "no_server":
            raise OSError("it does not start")
        if name == "no_program":
            pytest.skip("not found: a program")
        yield
        assert name != "leaks", "something is left"

    def against(self):
        return "Mine 1.2"

    def make_harness(self):
        return NativeHarness()

    def only(self, promise):
        return promise.name != "others"

    @pytest.mark.parametrize(
        "promise",
        [
            promise(kept, "kept"),
            promise(broken, "broken"),
            promise(kept, "durable", "durable"),
            promise(undrivable, "undrivable"),
            promise(kept, "others"),
            promise(kept, "no_server"),
            promise(kept, "no_program"),
            promise(kept, "leaks"),
            promise(broken, "both"),
            pytest.param(promise(broken, "known"), marks=pytest.mark.xfail(reason="a fault that is known")),
        ],
        ids=str,
    )
    def test_promise(self, promise):
        super().test_promise(promise)


class TestNameless(TransportConformance):
    make_harness = MemoryHarness

    @pytest.mark.parametrize("promise", [promise(kept, "kept")], ids=str)
    def test_promise(self, promise):
        pass


def test_something_else():
    pass
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("recorded")
    report = folder / "report.json"
    (folder / "test_suite.py").write_text(SUITE, encoding="utf-8")
    plugin = ["-p", "neuralcore.testing.conformance.plugin", f"--conformance-report={report}"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, f"--rootdir={folder}"]
    env = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    command.append(str(folder / "test_suite.py"))
    done = subprocess.run(command, check=False, timeout=50, capture_output=True, text=True, env=env)
    assert "failed" in done.stdout, done.stdout + done.stderr
    return json.loads(report.read_text(encoding="utf-8"))


def test_every_way_that_a_test_can_end(recorded):
    assert recorded["mine"]["results"] == {
        "group.kept": "passed",
        "group.broken": "failed: neuralcore.testing.conformance.promise.Broken: it is not, | for once",
        "group.durable": "skipped: not declared: durable",
        "group.undrivable": "skipped: unproven: no hammer",
        "group.others": "skipped: left out: it is for others",
        "group.no_server": "failed: setup: OSError: it does not start",
        "group.no_program": "skipped: not found: a program",
        "group.leaks": "failed: teardown: AssertionError: something is left",
        "group.both": "failed: neuralcore.testing.conformance.promise.Broken: it is not, | for once",
        "group.known": "failed: known: a fault that is known",
    }


def test_what_it_ran_against(recorded):
    assert recorded["mine"]["against"] == "Mine 1.2"
    assert recorded["mine"]["python"] == ".".join(map(str, sys.version_info[:3]))


def test_a_set_up_without_a_name_has_that_of_its_class(recorded):
    assert recorded["TestNameless"]["results"] == {"group.kept": "passed"}
    assert set(recorded) == {"mine", "TestNameless"}
